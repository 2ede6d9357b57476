"""What the docker engine decides without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import msgspec
import pytest

from neuro.docker.asking import Component, Refused, Version, chosen_version
from neuro.docker.images import Image, ImageConfig, Step, name_and_tag
from neuro.engines.base import EngineFault
from neuro.engines.docker.api import Container, ContainerState, Daemon, Info
from neuro.engines.docker.containers import (
    container_body,
    launched,
    network_of,
    search_path,
    unfit,
)
from neuro.engines.docker.finding import cannot_build
from neuro.engines.docker.gpus import (
    asked_for,
    devices_of,
    devices_of_podman,
    gpus_of,
    runtime_gives,
)
from neuro.engines.docker.images import CannotPull, Progress, fetched, whole_name
from neuro.engines.docker.making import Made, make
from neuro.engines.docker.order import Order
from neuro.engines.docker.saving import image_config
from neuro.engines.docker.settings import socket_path
from tests.engines.harness import spec

pytestmark = pytest.mark.pure


def test_daemons_of_docker_build_from_20_10_on() -> None:
    podman = Version(api_version="1.41", components=[Component(name="Podman Engine")])

    assert cannot_build(podman) == "podman's service has no BuildKit"
    assert cannot_build(Version(api_version="1.40")) == "its BuildKit is too old"
    assert cannot_build(Version(api_version="1.41")) is cannot_build(Version("1.100")) is None


def test_an_image_above_a_machines_programs_is_refused_with_what_to_do() -> None:
    above = unfit(ImageConfig(labels={"neuro.base": "host"}))

    assert above is not None
    assert "preset of the engine `sandbox`" in above
    assert unfit(ImageConfig()) is unfit(ImageConfig(labels={"neuro.base": "debian"})) is None


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
    [("1.41", "1.12", "1.41"), ("1.99", "1.44", "1.56"), ("1.40", "1.12", "1.40")],
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
    ("asked", "seen"),
    [
        ((), "void"),
        (("nvidia.com/gpu=0",), "void"),
        (("1", "3"), "1,3"),
        (("amd.com/gpu=0", "2"), "2"),
    ],
)
def test_no_environment_of_a_job_makes_more_gpus_visible(asked: tuple[str, ...], seen: str) -> None:
    run = spec("x", gpus=asked, env={"NVIDIA_VISIBLE_DEVICES": "all"})

    body = container_body("i", run, "sha256:1", ["l"], (), 10)

    assert [line for line in body["Env"] if line.startswith("NVIDIA")] == [
        f"NVIDIA_VISIBLE_DEVICES={seen}"
    ]


def test_gpus_are_asked_for_by_the_daemons_names() -> None:
    def requests(*gpus: str) -> object:
        body = container_body("i", spec("x", gpus=gpus), "sha256:1", ["l", "w"], (), 10)
        return body["HostConfig"].get("DeviceRequests")

    by_number = {"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]}
    by_interface = {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0"]}

    assert requests("1", "3") == [by_number]
    assert requests("nvidia.com/gpu=0") == [by_interface]
    assert requests("1", "nvidia.com/gpu=0", "3") == [by_interface, by_number]
    assert requests() is None


@pytest.mark.parametrize(
    ("devices", "by_runtime", "expected"),
    [
        ((), (), {}),
        ((), (0, 1), {"0": "0", "1": "1"}),
        (
            ("nvidia.com/gpu=10", "nvidia.com/gpu=2", "nvidia.com/gpu=all", "nvidia.com/gpu=GPU-a"),
            (2, 10),
            {"2": "nvidia.com/gpu=2", "10": "nvidia.com/gpu=10"},
        ),
        (
            ("amd.com/gpu=0", "amd.com/nic=1", "nvidia.com/gpu=0:1"),
            (0,),
            {"amd.com/gpu=0": "amd.com/gpu=0", "0": "0"},
        ),
        (
            ("k8s.device-plugin.nvidia.com/gpu=0", "nvidia.com/gpu=0"),
            (),
            {"0": "nvidia.com/gpu=0"},
        ),
    ],
)
def test_a_gpu_has_a_name_that_stays_and_one_that_the_daemon_is_asked_for(
    devices: tuple[str, ...], by_runtime: tuple[int, ...], expected: dict[str, str]
) -> None:
    assert list(gpus_of(devices, by_runtime).items()) == list(expected.items())


def test_a_job_keeps_its_gpu_when_the_daemon_calls_it_otherwise() -> None:
    for known in (gpus_of((), (0, 1)), gpus_of(("nvidia.com/gpu=0", "nvidia.com/gpu=1"), ())):
        assert asked_for(("1",), known) == (known["1"],)
        assert asked_for(("nvidia.com/gpu=1",), known) == (known["1"],)
        with pytest.raises(KeyError):
            asked_for(("2",), known)


def _info(**told: object) -> Info:
    return msgspec.convert({"NCPU": 2, "MemTotal": 1 << 30, **told}, Info)


def test_a_daemon_without_nvidias_runtime_and_hook_gives_no_gpus_by_number() -> None:
    with_runtime = _info(Runtimes={"runc": {}, "nvidia": {"path": "x"}})

    assert runtime_gives(with_runtime, has_hook=False)
    assert runtime_gives(_info(), has_hook=True)
    assert not runtime_gives(_info(Runtimes={"runc": {}}), has_hook=False)


def test_devices_are_those_that_the_daemon_lists_or_else_those_of_its_folders(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.json").write_text(
        '{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}'
    )
    (tmp_path / "b.yaml").write_text("kind: amd.com/gpu\ndevices:\n- name: '1'\n- name: all\n")
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.yaml").write_text("kind: [x\n")
    (tmp_path / "e.txt").write_text('{"kind": "x/y", "devices": [{"name": "0"}]}')
    listed = [{"Source": "cdi", "ID": "nvidia.com/gpu=7"}]
    folders = [str(tmp_path), f"{tmp_path}/nothing"]

    assert devices_of(_info(CDISpecDirs=folders)) == [
        *("nvidia.com/gpu=0", "amd.com/gpu=1", "amd.com/gpu=all")
    ]
    assert devices_of(_info(CDISpecDirs=folders, DiscoveredDevices=listed)) == ["nvidia.com/gpu=7"]
    assert devices_of(_info()) == []


@pytest.mark.parametrize(
    ("version", "asked"), [("4.3.1", False), ("5.3.9", False), ("5.4.2", True), ("dev", False)]
)
def test_an_old_service_of_podman_is_not_asked_for_devices(
    version: str, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text('{"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}')
    monkeypatch.setattr("neuro.engines.docker.cdi.USUAL", (str(tmp_path),))

    found = devices_of_podman(_info(ServerVersion=version))

    assert found == (["nvidia.com/gpu=0"] if asked else [])


def test_only_neighbours_share_a_network() -> None:
    names = {network_of("i", who) for who in ("", "alice", "bob")}

    assert len(names) == 3
    alone = container_body("i", spec("x", names=("n",)), "sha256:1", ["l"], (), 10)
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


class DaemonWithImages:
    """A daemon that has every image, and whose registries have none."""

    def image(self, reference: str) -> Image:
        return Image(id=reference)

    def pull(self, name: str, *_: object) -> list[Step]:
        return [Step(error="not found")]


@pytest.mark.parametrize("place", ["127.0.0.1:8085", "localhost:5000"])
def test_an_image_of_a_registry_of_this_machine_is_asked_for_there(place: str) -> None:
    # It may be the platform's, as it was pulled for somebody else at another port.
    with pytest.raises(CannotPull, match="not found"):
        fetched(cast("Daemon", DaemonWithImages()), f"{place}/bob/secret:v1", None, print)


@pytest.mark.parametrize("place", ["example.org", "localhost"])
def test_an_image_of_elsewhere_that_is_here_is_taken(place: str) -> None:
    found = fetched(cast("Daemon", DaemonWithImages()), f"{place}/bob/image:v1", None, print)

    assert found.id == f"{place}/bob/image:v1"


class DaemonThatLoses:
    """Has one image, whose name it loses after it is pulled, and which it loses itself.

    ``names`` says how many pulls leave no name, and ``images`` how many containers find no image.
    """

    is_podman = False

    def __init__(self, names: int = 0, images: int = 0) -> None:
        self._names, self._images = names, images
        self._is_here = False
        self.made: list[object] = []

    def image(self, reference: str) -> Image | None:
        return Image(id="sha256:1", config=ImageConfig(cmd=["sh"])) if self._is_here else None

    def pull(self, *_: object) -> list[Step]:
        self._is_here = self._names == 0
        self._names = max(0, self._names - 1)
        return []

    def network(self, name: str) -> bool:
        return True

    def make_container(self, name: str, body: dict[str, object]) -> str:
        if self._images:
            self._images -= 1
            raise Refused(404, "No such image: sha256:1")
        self.made.append(body["Image"])
        return "c"

    def start_container(self, identity: str) -> None:
        pass


def test_an_image_that_a_build_removes_after_its_pull_is_pulled_again() -> None:
    daemon = DaemonThatLoses(names=2)

    found = fetched(cast("Daemon", daemon), "r.io/me/made:v1", None, lambda share: None)

    assert found.id == "sha256:1"


def test_a_container_is_made_of_what_was_pulled_whatever_has_the_name_by_then() -> None:
    daemon = DaemonThatLoses(images=1)
    run = spec("x", image="r.io/me/made:v1")
    order = Order(
        folder="/x", socket="/s", version="1.41", is_podman=False, installation="i", spec=run
    )
    ended: list[int] = []
    made: list[Made] = []

    make(
        cast("Daemon", daemon),
        order,
        (),
        "word",
        lambda share: None,
        lambda: None,
        lambda: ended.append(1),
        made.append,
    )

    assert daemon.made == ["sha256:1"]
    assert (ended, len(made)) == ([1], 1)
