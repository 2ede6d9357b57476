"""Which engine a new data folder begins with."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, Amount
from neuro.engines.docker.finding import Found, find
from neuro.server.engine_choice import best, choose
from neuro.server.engine_settings import engine_settings
from neuro.server.settings import keep_cluster, keep_engine, load_settings, presets_for

DOCKER = Found("/run/docker.sock")
PODMAN = Found("/run/podman/podman.sock")
NO_IMAGES = Found("/run/docker.sock", "it reaches no registry")


@pytest.mark.parametrize(
    ("docker", "podman", "engine", "why"),
    [
        (DOCKER, PODMAN, "docker", "which answers at /run/docker.sock"),
        (None, PODMAN, "podman", "which answers at /run/podman/podman.sock"),
        (NO_IMAGES, PODMAN, "podman", "which answers"),
        (NO_IMAGES, None, "sandbox", "docker answers at /run/docker.sock, but it reaches no"),
        (None, None, "sandbox", "neither docker nor podman answers here"),
    ],
)
def test_the_first_that_can_be_used_is_chosen(
    docker: Found | None, podman: Found | None, engine: str, why: str
) -> None:
    choice = best({"docker": docker, "podman": podman})

    assert choice.engine == engine
    assert why in (choice.why or "")


def test_a_folder_from_before_keeps_the_engine_of_its_presets(tmp_path: Path) -> None:
    keep_cluster(tmp_path, "default")

    assert choose(tmp_path, None) is None
    assert load_settings(tmp_path / "server.toml").engine == "sandbox"


def test_what_a_folder_began_with_stays_until_somebody_decides_otherwise(tmp_path: Path) -> None:
    settings = tmp_path / "server.toml"
    keep_engine(tmp_path, "docker")

    assert choose(tmp_path, None) is None
    assert load_settings(settings).engine == "docker"
    assert load_settings(settings, "sandbox").engine == "sandbox"
    settings.write_text('engine = "podman"')
    assert choose(tmp_path, None) is None
    assert load_settings(settings).engine == "podman"


def test_the_command_line_and_the_settings_must_not_contradict(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('engine = "docker"')

    with pytest.raises(InvalidInput, match=r'engine = "docker", and the command line sandbox'):
        choose(tmp_path, "sandbox")
    choice = choose(tmp_path, "docker")
    assert choice is not None
    assert (choice.engine, choice.why) == ("docker", None)


def test_presets_that_name_no_engine_run_on_the_chosen_one(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    machine = Amount(cpu=4, memory=8 * GIB)

    built_in = presets_for(load_settings(path, "docker"), machine, None)
    path.write_text("[[presets]]\nname = 'a'\ncpu = 1\nmemory = '1G'\n")
    written = presets_for(load_settings(path, "docker"), machine, None)

    assert {preset.engine for preset in (*built_in, *written)} == {"docker"}
    # The sandbox is left with main jobs, so nobody has to divide the machine.
    assert set(engine_settings(load_settings(path, "docker"))) == {"sandbox", "docker"}


def test_two_engines_with_presets_divide_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("[[presets]]\nname = 'a'\ncpu = 1\nmemory = '1G'\nengine = 'sandbox'\n")

    with pytest.raises(InvalidInput, match="shares this machine with"):
        load_settings(path, "docker")


VERSION = {"ApiVersion": "1.41", "MinAPIVersion": "1.12"}
INFO = {"NCPU": 2, "MemTotal": GIB}


@contextmanager
def daemon(folder: Path, answers: dict[str, tuple[int, object]]) -> Iterator[str]:
    """Something that answers as a daemon does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, answer = answers.get(self.path, (404, {"message": "page not found"}))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def address_string(self) -> str:
            return "somebody"

        def log_message(self, *_: object) -> None:
            pass

    place = str(folder / "socket")
    with socketserver.ThreadingUnixStreamServer(place, Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield place
        server.shutdown()


@pytest.mark.parametrize(
    ("registry", "info", "lack"),
    [
        ((200, {"Descriptor": {}}), INFO, None),
        ((403, {"message": "denied: requested access to the resource is denied"}), INFO, None),
        ((500, {"message": "toomanyrequests: You have reached your pull rate limit"}), INFO, None),
        (
            (500, {"message": 'Get "https://x/v2/": dial tcp: lookup x: no such host'}),
            INFO,
            "it reaches no registry, so it has no images to pull",
        ),
        (
            (500, {"message": "dial tcp: lookup x: no such host"}),
            {**INFO, "RegistryConfig": {"Mirrors": ["http://mirror/"]}},
            None,
        ),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="a server that root runs")
def test_a_daemon_can_be_used_where_it_reaches_a_registry(
    tmp_path: Path, registry: tuple[int, object], info: object, lack: str | None
) -> None:
    answers = {"/version": (200, VERSION), "/info": (200, info)}
    with daemon(tmp_path, {**answers, "/distribution/busybox/json": registry}) as place:
        found = find([place], {})

    assert found is not None
    assert found.place == place
    assert found.lack == lack if lack is None else lack in (found.lack or "")


def test_a_daemon_that_is_too_old_is_told(tmp_path: Path) -> None:
    answers: dict[str, tuple[int, object]] = {"/version": (200, {"ApiVersion": "1.20"})}
    with daemon(tmp_path, answers) as place:
        found = find([place], {})

    assert found is not None
    assert "speaks version 1.20" in (found.lack or "")


def test_what_does_not_answer_as_a_daemon_is_none(tmp_path: Path) -> None:
    with daemon(tmp_path, {}) as place:
        assert find([place], {}) is None
    assert find([str(tmp_path / "nothing")], {}) is None
    assert find([], {"DOCKER_HOST": "tcp://127.0.0.1:2375"}) is None
