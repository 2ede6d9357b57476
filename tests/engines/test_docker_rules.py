"""What the docker engine decides without a daemon."""

from __future__ import annotations

import msgspec
import pytest

from neuro.docker.asking import Version, chosen_version
from neuro.docker.images import ImageConfig, Step
from neuro.engines.base import EngineFault
from neuro.engines.docker.api import Container, ContainerState, Info
from neuro.engines.docker.containers import (
    container_body,
    launched,
    network_of,
    search_path,
)
from neuro.engines.docker.gpus import gpus_of
from neuro.engines.docker.images import Progress, name_and_tag, whole_name
from neuro.engines.docker.saving import image_config
from neuro.engines.docker.settings import socket_path
from tests.engines.harness import spec


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("ubuntu", ("ubuntu", "latest")),
        ("ubuntu:22.04", ("ubuntu", "22.04")),
        ("localhost:5000/a/b", ("localhost:5000/a/b", "latest")),
        ("localhost:5000/a/b:v1", ("localhost:5000/a/b", "v1")),
        ("a@sha256:00", ("a@sha256:00", "")),
    ],
)
def test_an_image_has_a_name_and_a_tag(reference: str, expected: tuple[str, str]) -> None:
    assert name_and_tag(reference) == expected


@pytest.mark.parametrize(
    ("reference", "whole"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest"),
        ("anna/secret:v1", "docker.io/anna/secret:v1"),
        ("sha256:3f", "docker.io/library/sha256:3f"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("a@sha256:" + 64 * "0", "docker.io/library/a@sha256:" + 64 * "0"),
    ],
)
def test_a_daemon_is_asked_for_an_image_with_its_registry(reference: str, whole: str) -> None:
    assert whole_name(reference) == whole
    body = container_body("i", spec("x", image=reference), ["l"], (), 10)
    assert body["Image"] == whole


def test_the_progress_of_a_pull_never_goes_back() -> None:
    progress = Progress()
    steps = [
        Step(status="Downloading", id="a", progress_detail={"current": 50, "total": 100}),
        Step(status="Downloading", id="b", progress_detail={"current": 0, "total": 900}),
        Step(status="Download complete", id="a"),
        Step(status="Downloading", id="b", progress_detail={"current": 800, "total": 900}),
        Step(status="Pull complete", id="b"),
    ]

    told = [progress.value for step in steps if progress.take(step)]

    assert told == [0.5, 0.9, 1.0]


@pytest.mark.parametrize(
    ("newest", "least", "chosen"),
    [("1.41", "1.12", "1.41"), ("1.99", "1.44", "1.51"), ("1.40", "1.12", "1.40")],
)
def test_the_version_is_one_that_both_speak(newest: str, least: str, chosen: str) -> None:
    assert chosen_version(Version(newest, least)) == chosen


@pytest.mark.parametrize(("newest", "least"), [("1.39", "1.12"), ("2.1", "2.0")])
def test_no_common_version_is_said(newest: str, least: str) -> None:
    with pytest.raises(ValueError, match="speaks version"):
        chosen_version(Version(newest, least))


def test_a_command_is_looked_for_in_the_path_of_the_job_then_of_the_image() -> None:
    config = ImageConfig(env=["A=1", "PATH=/image"])

    assert search_path(spec("x", env={"PATH": "/mine"}), config) == "/mine"
    assert search_path(spec("x"), config) == "/image"
    assert "/usr/bin" in search_path(spec("x"), ImageConfig())
    assert launched("w", ["x", ""], "/a:/b")[1:] == ["w", "/a/x", "/b/x", "", "x", ""]
    assert launched("w", ["./x"], "/a:/b")[1:] == ["w", "./x", "", "./x"]
    assert launched("w", [""], "/a")[1:] == ["w", "", ""]


@pytest.mark.parametrize(
    ("entrypoint", "argv", "expected"),
    [
        (None, (), ("own", "default")),
        (None, ("mine",), ("own", "mine")),
        (("other",), (), ("other",)),
        (("other",), ("mine",), ("other", "mine")),
        ((), ("mine",), ("mine",)),
    ],
)
def test_an_entrypoint_takes_the_place_of_that_of_the_image_and_of_its_command(
    entrypoint: tuple[str, ...] | None, argv: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert spec(*argv, entrypoint=entrypoint).command_line(["own"], ["default"]) == expected


@pytest.mark.parametrize(("entrypoint", "own"), [((), ["default"]), (None, [])])
def test_a_run_without_a_word_to_execute_is_refused(
    entrypoint: tuple[str, ...] | None, own: list[str]
) -> None:
    with pytest.raises(ValueError, match="no command of its own"):
        spec(entrypoint=entrypoint).command_line([], own)


@pytest.mark.parametrize(
    ("gpus", "seen"),
    [((), "void"), (("nvidia.com/gpu=0",), "void"), (("1", "3"), "1,3")],
)
def test_no_environment_of_a_job_makes_more_gpus_visible(gpus: tuple[str, ...], seen: str) -> None:
    asked = spec("x", gpus=gpus, env={"NVIDIA_VISIBLE_DEVICES": "all"})

    body = container_body("i", asked, ["l"], (), 10)

    assert [line for line in body["Env"] if line.startswith("NVIDIA")] == [
        f"NVIDIA_VISIBLE_DEVICES={seen}"
    ]


def test_gpus_are_asked_for_by_their_names() -> None:
    def requests(*gpus: str) -> object:
        body = container_body("i", spec("x", gpus=gpus), ["l", "w"], (), 10)
        return body["HostConfig"].get("DeviceRequests")

    assert requests("1", "3") == [
        {"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}
    ]
    assert requests("nvidia.com/gpu=0") == [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}]
    assert requests() is None


@pytest.mark.parametrize(
    ("told", "hook", "expected"),
    [
        ({}, False, ()),
        ({}, True, ("0", "1")),
        ({"Runtimes": {"runc": {}, "nvidia": {"path": "x"}}}, False, ("0", "1")),
        (
            {
                "Runtimes": {"nvidia": {}},
                "DiscoveredDevices": [
                    {"Source": "cdi", "ID": f"nvidia.com/gpu={name}"}
                    for name in ("10", "2", "all", "GPU-aa", "0:1")
                ],
            },
            True,
            ("nvidia.com/gpu=2", "nvidia.com/gpu=10"),
        ),
    ],
)
def test_gpus_are_those_that_the_daemon_can_give(
    told: dict[str, object], hook: bool, expected: tuple[str, ...]
) -> None:
    info = msgspec.convert({"NCPU": 2, "MemTotal": 1 << 30, **told}, Info)

    assert gpus_of(info, [0, 1], has_hook=hook) == expected


def test_only_neighbours_share_a_network() -> None:
    names = {network_of("i", who) for who in ("", "alice", "bob")}

    assert len(names) == 3
    alone = container_body("i", spec("x", names=("n",)), ["l"], (), 10)
    assert alone["NetworkingConfig"]["EndpointsConfig"] == {network_of("i", ""): {}}


def test_the_daemon_is_where_it_is_said_to_be() -> None:
    assert socket_path("unix:///a", {"DOCKER_HOST": "unix:///b"}) == "/a"
    assert socket_path(None, {"DOCKER_HOST": "unix:///b"}) == "/b"
    with pytest.raises(EngineFault, match="not a socket of this machine"):
        socket_path("tcp://1.2.3.4:2375", {})


def test_an_image_of_a_run_says_what_its_own_image_said() -> None:
    own = ImageConfig(
        entrypoint=["a"],
        env=["PATH=/image", "A=1"],
        labels={"maintainer": "anna"},
        working_dir="/work",
    )
    given = ImageConfig(
        entrypoint=["/.neuro/launcher"],
        cmd=["word"],
        env=["PATH=/mine", "A=1", "TOKEN=secret"],
        labels={"neuro.job": "job-1", "maintainer": "anna"},
        working_dir="/elsewhere",
        healthcheck={"Test": ["NONE"]},
    )
    container = Container(id="c", state=ContainerState(running=True), config=given)

    assert image_config(own, container) == {
        "Entrypoint": ["a"],
        "Cmd": [],
        "Env": ["PATH=/image", "A=1", "TOKEN="],
        "Labels": {"neuro.job": "", "maintainer": "anna"},
        "WorkingDir": "/work",
        "User": "",
        "Healthcheck": {"Test": []},
    }
