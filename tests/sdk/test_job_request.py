from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuro.cli.job.generate_run_command import run_command
from neuro.client.job_request import (
    RunOptions,
    Where,
    environment,
    job_request,
    join_command,
    parse_volumes,
)
from neuro.domain.errors import InvalidInput
from neuro.domain.jobs import JobRequest
from neuro.domain.uris import parse_uri
from tests.cli.jobs import make_job

WHERE = Where("default", "anna")


def request_of(**options: object) -> JobRequest:
    return job_request(RunOptions(image="ubuntu", **options), WHERE, environ={"HERE": "local"})  # type: ignore[arg-type]


def test_a_plain_run_asks_for_the_documented_defaults() -> None:
    request = request_of(command=("echo", "hi"), preset="cpu-small")

    assert request.command == "echo hi"
    assert request.max_run_time_minutes == 24 * 60
    assert request.http is not None
    assert (request.http.port, request.http.requires_auth) == (80, True)
    assert request.resources is not None
    assert request.resources.shm
    assert request.cluster_name == "default"


def test_port_zero_means_no_web_server() -> None:
    assert request_of(http=0).http is None


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ((), None),
        (("echo Hello, $USER",), "echo Hello, $USER"),
        (("echo", "Hello, World!"), "echo 'Hello, World!'"),
        (("--", "sh", "-c", "exit 7"), "sh -c 'exit 7'"),
        (("--",), None),
        (("a", "--", "b"), "a -- b"),
    ],
)
def test_one_word_is_sent_as_it_is_and_several_are_quoted(
    words: tuple[str, ...], command: str | None
) -> None:
    assert join_command(words) == command


@given(st.lists(st.text(min_size=1), min_size=2))
def test_quoted_words_come_apart_as_they_were(words: list[str]) -> None:
    if words[0] == "--":
        return

    assert shlex.split(join_command(words) or "") == words


@pytest.mark.parametrize(
    ("text", "uri", "path", "read_only"),
    [
        ("storage:data:/mnt:ro", "storage://default/anna/data", "/mnt", True),
        ("storage:data:/mnt:rw", "storage://default/anna/data", "/mnt", False),
        ("storage:data:/mnt", "storage://default/anna/data", "/mnt", False),
        ("storage::/srv:rw", "storage://default/anna", "/srv", False),
        ("storage:/bob/x:/mnt:ro", "storage://default/bob/x", "/mnt", True),
        ("storage://lab/bob/x:/mnt:ro", "storage://lab/bob/x", "/mnt", True),
        ("storage:a/b/:/code:rw", "storage://default/anna/a/b", "/code", False),
        ("storage:my data:/m:ro", "storage://default/anna/my%20data", "/m", True),
        ("storage:50%25:/m", "storage://default/anna/50%25", "/m", False),
    ],
)
def test_a_storage_volume_has_a_folder_a_path_and_a_mode(
    text: str, uri: str, path: str, read_only: bool
) -> None:
    (volume,) = parse_volumes([text], WHERE).storage

    assert (volume.src_storage_uri, volume.dst_path, volume.read_only) == (uri, path, read_only)


def test_disks_and_secrets_are_mounts_of_their_own() -> None:
    volumes = parse_volumes(["disk:cache:/cache:ro", "secret:key:/keys/one"], WHERE)

    assert volumes.disks[0].src_disk_uri == "disk://default/anna/cache"
    assert volumes.secrets[0].dst_path == "/keys/one"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            ["storage:a:/data", "storage:b:/other", "storage:c:/data/:ro"],
            "Two volumes are mounted at '/data/': storage:a and storage:c. Give each",
        ),
        (["storage:a:/data", "secret:key:/data"], "at '/data': storage:a and secret:key"),
        (["disk:d:/d", "disk:d:/d"], "at '/d': disk:d and disk:d"),
    ],
)
def test_two_volumes_at_one_path_are_refused_by_what_was_typed(texts: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_volumes(texts, WHERE)


def test_a_volume_in_another_one_is_no_second_one_at_its_path() -> None:
    volumes = parse_volumes(["storage:a:/data", "storage:b:/data/b"], WHERE)

    assert [one.dst_path for one in volumes.storage] == ["/data", "/data/b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HOME", "no longer supported"),
        ("ALL", "no longer supported"),
        ("storage:data", "Invalid volume"),
        ("data:/mnt", "Invalid volume"),
        ("storage:data:mnt", "not an absolute path"),
        ("storage:data:/mnt:wr", "Wrong mode 'wr'"),
        ("storage:../bob:/mnt:ro", "climbs out"),
        ("storage:~/x:/mnt", "'~' means nothing"),
        ("storage:a?b:/mnt", "%3F"),
        ("secret:key:/file:rw", "a secret has no mode"),
        ("image:x:/mnt", "Invalid volume"),
    ],
)
def test_what_is_no_volume_is_refused_with_the_right_form(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_volumes([text], WHERE)


def test_a_variable_is_given_copied_or_a_secret_and_the_last_one_wins() -> None:
    plain, secret = environment(
        ["A=1", "HERE", "GONE", "B=x=y", "S=secret:key", "A=2", "E="], {"HERE": "local"}, WHERE
    )

    assert plain == {"A": "2", "HERE": "local", "GONE": "", "B": "x=y", "E": ""}
    assert secret == {"S": "secret://default/anna/key"}


def test_an_env_file_has_settings_and_comments_and_options_win_over_it() -> None:
    options = RunOptions(image="ubuntu", env=("B=option",), env_files=("one", "two"))
    files = {"one": "# first\nA=1\n\nB=1\n", "two": "  B=2  \nC=3"}

    request = job_request(options, WHERE, environ={}, read_text=files)

    assert request.env == {"A": "1", "B": "option", "C": "3"}


def test_a_line_of_an_env_file_may_end_as_on_windows() -> None:
    options = RunOptions(image="ubuntu", env_files=("env",))
    text = "A=1\r\nB=two \x0bwords\r\n"

    request = job_request(options, WHERE, environ={}, read_text={"env": text})

    assert request.env == {"A": "1", "B": "two \x0bwords"}


@pytest.mark.parametrize("line", ["export C=3", " F = 5", "A\tB=1", "a b"])
def test_a_name_with_a_blank_in_it_is_refused_with_its_line(line: str) -> None:
    options = RunOptions(image="ubuntu", env_files=("my.env",))

    with pytest.raises(InvalidInput, match=r"^my\.env, line 3: .* has a blank in it"):
        job_request(options, WHERE, environ={}, read_text={"my.env": f"A=1\n\n{line}\n"})
    with pytest.raises(InvalidInput, match="blank"):
        environment([line], {}, WHERE)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\tb", "b\r", " a b "])
def test_a_volume_means_the_name_that_was_written(name: str) -> None:
    (volume,) = parse_volumes([f"storage:{name}:/mnt:ro"], WHERE).storage

    assert parse_uri(volume.src_storage_uri).segments == ("anna", name)


def test_a_nameless_variable_is_refused() -> None:
    with pytest.raises(InvalidInput, match="NAME=VALUE"):
        environment(["=x"], {}, WHERE)


def test_a_bad_name_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidInput, match="Invalid job name 'A_b'"):
        request_of(name="A_b")


def test_the_line_that_makes_a_job_again_has_what_differs_from_the_defaults() -> None:
    line = run_command(
        make_job(name="train", preset_name="cpu-small", tags=["a b"], command="python 'x y.py'")
    )

    assert line == (
        "neuro run --preset cpu-small --name train --tag 'a b' ubuntu -- python 'x y.py'"
    )


def test_a_line_with_a_command_that_no_quoting_makes_again_keeps_it_as_one_word() -> None:
    line = run_command(make_job(command='echo "$HOME"  x'))

    assert shlex.split(line)[-1] == 'echo "$HOME"  x'
