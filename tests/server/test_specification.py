"""What a submission may say: a table of what is refused, with the words a person reads."""

from __future__ import annotations

import shlex

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro.domain.errors import InvalidInput, NeverFits, NotSupported, PlatformError
from neuro.domain.jobs import JobRequest, RequestedResources
from neuro.domain.resources import GIB, Amount, Preset
from neuro.server.jobs.specification import (
    argv_of,
    check_fits,
    choose_preset,
    container_of,
    entrypoint_and_argv,
    explicit_amount,
    mistakes,
)

PRESETS = [
    Preset(name="cpu-small", cpu=1.0, memory=2 * GIB),
    Preset(name="cpu-large", cpu=2.0, memory=16 * GIB),
]


def request(**changes: object) -> JobRequest:
    return msgspec.convert({"image": "ubuntu:latest", **changes}, JobRequest)


def check(asked: JobRequest) -> None:
    for mistake in mistakes(asked, container_of(asked), "default"):
        raise mistake


def volume(source: str, target: str) -> dict[str, object]:
    return {"src_storage_uri": source, "dst_path": target}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"working_dir": "/" + "a" * 4096}, "The working directory .* is over 4096 bytes"),
        (
            {"volumes": [volume("storage://default/alice", "/m" + "/a" * 2048)]},
            "The mount path .* is over 4096 bytes",
        ),
        ({"cluster_name": "mars"}, "Cluster 'mars' is unknown"),
        ({"name": "X"}, "Invalid job name 'X'"),
        ({"name": "job-abc"}, "Invalid job name"),
        ({"name": "a" * 41}, "Invalid job name"),
        ({"tags": ["t"] * 17}, "16 tags at most"),
        ({"tags": ["a b"]}, "Invalid tag 'a b'"),
        ({"description": "x" * 5000}, "A description"),
        ({"max_run_time_minutes": 0}, "max_run_time_minutes"),
        ({"schedule_timeout": -1}, "schedule timeout must be more than 0 seconds"),
        ({"image": "UPPER:case"}, "Invalid image"),
        ({"image": "ubuntu:"}, "Invalid image"),
        ({"image": ""}, "Invalid image"),
        ({"image": "a/" * 300 + "b"}, "Invalid image"),
        ({"command": "echo 'unfinished"}, "invalid command format"),
        ({"command": "x" * 200_000}, "The command is over"),
        ({"env": {"A=B": "c"}}, "environment variable"),
        ({"env": {"A": "nul\0"}}, "environment variable"),
        ({"env": {"A": "x" * 200_000}}, "The environment is over"),
        ({"http": {"port": 70000}}, "HTTP port 70000"),
        ({"working_dir": "project"}, "must begin with '/'"),
        ({"working_dir": "/a/../b"}, "must be written without '..'"),
        ({"working_dir": "/proc/self/fd/3"}, "is in /proc, which is the system's"),
        ({"working_dir": "//./proc/"}, "is in /proc, which is the system's"),
        ({"working_dir": "/sys"}, "is in /sys, which is the system's"),
        ({"working_dir": "/dev/shm"}, "is in /dev, which is the system's"),
        ({"working_dir": "/a\0--bind\0/\0/mnt"}, "has the character '.x00' at position 2"),
        ({"volumes": [volume("storage://default/me/x", "/proc/1")]}, "/proc is the system's"),
        ({"volumes": [volume("storage://default/me/x", "/proc")]}, "/proc is the system's"),
        ({"volumes": [volume("storage://default/me/x", "/./sys/fs")]}, "/sys is the system's"),
        ({"volumes": [volume("storage://default/me/x", "//dev")]}, "/dev is the system's"),
        ({"volumes": [volume("storage://default/me/x", "/a\x9bb")]}, "has the character '.x9b'"),
        ({"volumes": [volume("storage://default/me/x", "data")]}, "must be absolute"),
        ({"volumes": [volume("storage://default/me/x", "/a/../b")]}, "without '..'"),
        ({"volumes": [volume("storage://default/me/x", "/")]}, "cannot be mounted at '/'"),
        ({"volumes": [volume("storage://other/me/x", "/x")]}, "not in cluster"),
        ({"volumes": [volume("job://default/me/x", "/x")]}, "comes from storage:"),
        ({"volumes": [volume("storage://default/me/../you", "/x")]}, "'..'"),
        ({"volumes": [volume("storage://default/me/a%00b", "/x")]}, "NUL"),
        (
            {"volumes": [volume("storage://default/me/x", "/x")] * 2},
            "Two volumes are mounted at '/x'",
        ),
        (
            {
                "volumes": [
                    volume("storage://default/me/a", "/x"),
                    volume("storage://default/me/b", "/./x/"),
                ]
            },
            "Two volumes are mounted at '/./x/': storage://default/me/a and storage://default/me/b",
        ),
        ({"pass_config": True, "env": {"NEURO_PASSED_CONFIG": "x"}}, "--pass-config"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace("(", r"\(")):
        check(request(**changes))


@pytest.mark.parametrize(
    "image",
    [
        "ubuntu",
        "ubuntu:20.04",
        "neuromation/base:v1.7-dev",
        "127.0.0.1:8085/root/my_image:tag",
        "registry.example.com/team/name@sha256:" + "0" * 64,
    ],
)
def test_image_references_of_every_form_are_taken(image: str) -> None:
    check(request(image=image))


def test_what_is_not_there_yet_is_said_plainly() -> None:
    with pytest.raises(NotSupported, match="yet"):
        check(request(disk_volumes=[{"src_disk_uri": "disk://default/me/x", "dst_path": "/d"}]))


KEY = "secret://default/me/key"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"secret_env": {"A": "secret:key"}}, "not a full URI"),
        ({"secret_env": {"A": "storage://default/me/key"}}, "comes from secret:"),
        ({"secret_env": {"A": "secret://other/me/key"}}, "not in cluster 'default'"),
        ({"secret_env": {"A": "secret://default/me"}}, "does not name a secret"),
        ({"secret_env": {"A": "secret://default/me/a/b"}}, "does not name a secret"),
        ({"secret_env": {"A": "secret://default/me/-"}}, "cannot be a secret's name"),
        ({"secret_env": {"A=B": KEY}}, "cannot be an environment variable"),
        ({"secret_env": {"A": KEY}, "env": {"A": ""}}, "'A' is given twice"),
        ({"secret_env": {f"A{n}": KEY for n in range(65)}}, "64 secrets"),
        ({"secret_volumes": [{"src_secret_uri": KEY, "dst_path": "k"}]}, "must be absolute"),
        ({"secret_volumes": [{"src_secret_uri": KEY, "dst_path": "/proc/k"}]}, "the system's"),
        ({"secret_volumes": [{"src_secret_uri": KEY, "dst_path": "/k"}] * 2}, "Two volumes"),
    ],
)
def test_secrets_that_no_job_can_have_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        check(request(**changes))


def test_a_request_without_an_image_is_refused() -> None:
    with pytest.raises(InvalidInput, match="needs an image"):
        container_of(msgspec.convert({}, JobRequest))


def test_flat_and_nested_requests_mean_the_same() -> None:
    flat = request(command="echo hi", env={"A": "B"})
    nested = msgspec.convert(
        {"container": {"image": "ubuntu:latest", "command": "echo hi", "env": {"A": "B"}}},
        JobRequest,
    )

    assert container_of(flat) == container_of(nested)


def test_the_entrypoint_comes_before_the_command_and_no_shell_sees_either() -> None:
    container = container_of(request(entrypoint="sh -c", command="'echo $HOME'"))

    assert argv_of(container) == ("sh", "-c", "echo $HOME")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (None, ())),
        ({"command": "a b"}, (None, ("a", "b"))),
        ({"entrypoint": "sh -c"}, (("sh", "-c"), ())),
        ({"entrypoint": "sh", "command": "a"}, (("sh",), ("a",))),
        ({"entrypoint": "", "command": "a"}, ((), ("a",))),
        ({"entrypoint": ""}, (None, ())),
    ],
)
def test_an_engine_is_told_entrypoint_and_command_apart(
    given: dict[str, str], expected: tuple[tuple[str, ...] | None, tuple[str, ...]]
) -> None:
    assert entrypoint_and_argv(container_of(request(**given))) == expected


@settings(deadline=None)
@given(st.text(st.sampled_from("ab#$;\"'\\ \t\r\n\v\f\x1f\xa0\u2003\0")))
def test_words_are_those_of_a_shell(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError:
        with pytest.raises(InvalidInput):
            argv_of(container_of(request(command=command)))
        return

    assert argv_of(container_of(request(command=command))) == tuple(words)


def test_the_first_preset_is_the_default_and_an_unknown_one_names_the_known() -> None:
    assert choose_preset(request(), None, PRESETS) is PRESETS[0]
    with pytest.raises(InvalidInput, match="known are: cpu-small, cpu-large"):
        choose_preset(request(preset_name="gpu-huge"), None, PRESETS)


def test_a_preset_and_explicit_resources_exclude_each_other() -> None:
    resources = RequestedResources(cpu=1.0, memory=GIB)

    assert choose_preset(request(), resources, PRESETS) is None
    with pytest.raises(InvalidInput, match="not both"):
        choose_preset(request(preset_name="cpu-small"), resources, PRESETS)


def test_no_job_counts_as_nothing() -> None:
    tiny = explicit_amount(RequestedResources(cpu=1e-9, memory=8 << 20))

    assert tiny == Amount(cpu=0.01, memory=16 << 20)


def test_folders_that_only_begin_like_the_systems_are_anybodys() -> None:
    check(request(working_dir="/process", volumes=[volume("storage://default/me/x", "/data/proc")]))


def test_explicit_memory_may_be_bytes_or_megabytes() -> None:
    assert explicit_amount(RequestedResources(cpu=0.5, memory_mb=512)).memory == 512 << 20
    assert explicit_amount(RequestedResources(cpu=0.5, memory=GIB)).memory == GIB


@pytest.mark.parametrize(
    "resources", [{"cpu": 1.0}, {"cpu": -1.0, "memory": GIB}, {"cpu": float("nan"), "memory": GIB}]
)
def test_impossible_amounts_are_refused(resources: dict[str, float]) -> None:
    with pytest.raises(PlatformError):
        explicit_amount(msgspec.convert(resources, RequestedResources))


def test_what_never_fits_is_refused_with_the_numbers() -> None:
    machine = Amount(cpu=2.0, memory=4 * GIB)

    with pytest.raises(NeverFits) as caught:
        check_fits(Amount(cpu=8.0, memory=16 * GIB, gpu=1), machine, "Preset 'huge'")

    assert str(caught.value) == (
        "Preset 'huge' can never run here: it needs 8 CPUs (this machine has 2) and"
        " 16.0 GiB of memory (this machine has 4.0) and 1 GPU (this machine has 0)."
        " Choose a smaller preset."
    )
