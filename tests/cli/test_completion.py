from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from neuro.cli.completion import markers, patched, script
from tests.cli.platform import NEURO, Home
from tests.cli.saved import save
from tests.cli.shells import Shell, need

BEGIN, END = markers()


def offered(person: Home, *words: str) -> list[str]:
    """What is offered for the last word."""
    done = person.run(
        _NEURO_COMPLETE="bash_complete",
        COMP_WORDS=shlex.join(["neuro", *words]),
        COMP_TEXT=shlex.quote(words[-1]),
    )
    return [shlex.split(line.partition(",")[2])[0] for line in done.stdout.splitlines() if line]


def test_commands_and_options_are_offered(home: Home) -> None:
    assert offered(home, "po") == ["port-forward"]
    assert offered(home, "config", "sw") == ["switch-cluster"]
    assert "--preset" in offered(home, "run", "--pre")


def test_jobs_are_offered_by_name_and_id(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "--name", "offered", "ubuntu", "sleep", "100").strip()

    assert offered(person, "kill", "offe") == ["offered"]
    assert offered(person, "logs", job[:12]) == [job]
    assert offered(person, "status", "job:of") == ["job:offered"]


def test_jobs_that_are_over_are_offered_where_they_can_be_read(person: Home) -> None:
    job = person.ok("-q", "run", "--detach", "--name", "over-now", "ubuntu", "true").strip()
    person.ok("logs", job)

    assert offered(person, "logs", "over-n") == ["over-now"]
    assert offered(person, "status", job[:12]) == [job]
    assert offered(person, "kill", "over-n") == []


def test_help_offers_commands_and_topics(home: Home) -> None:
    assert offered(home, "help", "port") == ["port-forward"]
    assert "ps-format" in offered(home, "help", "ps")


def test_volumes_are_offered_up_to_their_place_in_the_job(person: Home) -> None:
    person.ok("mkdir", "-p", "storage:mounted/inner")

    assert offered(person, "run", "-v", "sto") == ["storage:"]
    assert offered(person, "run", "-v", "storage:mounted/in") == ["storage:mounted/inner/"]
    assert offered(person, "run", "-v", "storage:mounted:/in") == []


def test_fish_is_answered_and_its_start_up_file_patched_once(home: Home) -> None:
    done = home.run(_NEURO_COMPLETE="fish_complete", COMP_WORDS="neuro port", COMP_CWORD="port")
    home.ok("completion", "patch", "fish")
    home.ok("completion", "patch", "fish")

    assert done.stdout.splitlines()[0].partition("\t")[0] == "plain,port-forward"
    content = (home.folder / ".config/fish/config.fish").read_text()
    assert content == f"{BEGIN}\nneuro completion generate fish | source\n{END}\n"


def test_fish_completes(home: Home, tmp_path: Path) -> None:
    need("fish")
    program = tmp_path / "neuro"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(NEURO)} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "neuro.fish").write_text(script("fish"))

    ask = f"source {tmp_path}/neuro.fish; complete --do-complete 'neuro port'"
    environment = home.environment(PATH=f"{tmp_path}:{os.environ['PATH']}")

    done = subprocess.run(
        ["fish", "-N", "-c", ask], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.partition("\t")[0].strip() == "port-forward"


def test_presets_and_clusters_are_offered(person: Home) -> None:
    assert "cpu-small" in offered(person, "run", "--preset", "cpu")
    assert offered(person, "config", "switch-cluster", "") == ["default"]


def test_images_and_their_tags_are_offered(person: Home) -> None:
    save(person.work_dir / "image.tar", [])
    for tag in ("v1", "v2"):
        person.ok("push", "image.tar", f"image:offered:{tag}")
    user = json.loads(person.ok("config", "show", "--json"))["user"]

    assert offered(person, "image", "digest", "im") == ["image:"]
    assert offered(person, "pull", "image:of") == ["image:offered"]
    assert offered(person, "image", "rm", "image:offered:v") == [
        "image:offered:v1",
        "image:offered:v2",
    ]
    assert offered(person, "run", f"image:/{user}/of") == [f"image:/{user}/offered"]
    person.ok("image", "rm", "-f", "image:offered:v1")


def test_nothing_is_offered_where_there_is_no_server(home: Home) -> None:
    assert offered(home, "kill", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_start_up_file_is_patched_once(home: Home, shell: str) -> None:
    start_file = home.folder / f".{shell}rc"
    start_file.write_text("before=1")

    home.ok("completion", "patch", shell)
    once = start_file.read_text()
    home.ok("completion", "patch", shell)

    assert start_file.read_text() == once
    assert once.startswith("before=1\n")
    assert once.count(BEGIN) == once.count(END) == 1


def test_a_start_up_file_that_is_not_utf_8_stays_as_it_is(home: Home) -> None:
    start_file = home.folder / ".bashrc"
    start_file.write_bytes(b"name=\xe9\n")

    ran = home.run("completion", "patch", "bash")

    assert ran.returncode == 74
    assert "it is not UTF-8 text" in ran.stderr
    assert 'eval "$(neuro completion generate bash)"' in ran.stderr
    assert "codec" not in ran.stderr
    assert start_file.read_bytes() == b"name=\xe9\n"


def test_what_stands_around_the_block_stays() -> None:
    first = patched("a\n", "one\n")
    content = first + "b\n"

    assert patched(content, "two\n") == f"a\n{BEGIN}\ntwo\n{END}\nb\n"


@pytest.fixture(params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest, person: Home, tmp_path: Path) -> Shell:
    need(request.param)
    return Shell(request.param, person, tmp_path / "bin", "neuro", NEURO)


def test_shells_complete_words_with_colons(person: Home, shell: Shell) -> None:
    person.ok("-q", "run", "--detach", "--name", "quaint-job", "ubuntu", "sleep", "100")

    for keys in ("status job:qua\t", "status 'job:qua\t", "status job\\:qua\t"):
        assert shell.called(keys, person.work_dir) == ["status", "job:quaint-job"]


def test_shells_complete_paths_with_blanks(person: Home, shell: Shell) -> None:
    person.ok("mkdir", "-p", "storage:it's/a $HOME of one")

    for keys in ("storage:it\t", "storage:it\\'\t", '"storage:it\t', "'storage:it\t"):
        # Behind a folder zsh leaves the quotation mark to the person.
        last = keys[0] if shell.name == "zsh" and keys[0] in "'\"" else ""
        assert shell.called(f"ls {keys}a\t{last}", person.work_dir) == [
            "ls",
            "storage:it's/a $HOME of one/",
        ]


def test_shells_complete_the_value_in_one_word_with_its_option(home: Home, shell: Shell) -> None:
    assert shell.called("--color=n\t ps", home.work_dir) == ["--color=no", "ps"]
