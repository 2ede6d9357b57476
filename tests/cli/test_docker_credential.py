"""Docker finds the token of ``neuro login`` by itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.platform import Home

HELPER = [sys.executable, "-m", "neuro.cli.docker_credential"]


def helped(person: Home, command: str, said: str = "") -> tuple[int, str]:
    """The helper's exit code and answer."""
    done = subprocess.run(
        [*HELPER, command], env=person.environment(), input=said, capture_output=True, text=True
    )
    return done.returncode, done.stdout.strip()


@pytest.fixture
def host(person: Home) -> str:
    return str(json.loads(person.ok("config", "show", "--json"))["api_url"]).split("/")[2]


def test_a_token_is_found_by_its_registry(person: Home, host: str) -> None:
    token = person.ok("config", "show-token").strip()
    found = {"Username": "token", "Secret": token}

    for server in (host, f"https://{host}", f"http://{host}/v2/"):
        code, said = helped(person, "get", f"{server}\n")
        assert (code, json.loads(said)) == (0, {"ServerURL": server, **found})
    assert json.loads(helped(person, "list")[1]) == {host: "token"}


@pytest.mark.parametrize("server", ["ghcr.io", "127.0.0.1", "", "[", "http://"])
def test_docker_goes_on_without_the_token_elsewhere(person: Home, server: str) -> None:
    assert helped(person, "get", server) == (1, "credentials not found in native keychain")


def test_docker_stores_and_erases_nothing(person: Home, host: str) -> None:
    token = person.ok("config", "show-token").strip()

    assert helped(person, "store", json.dumps({"ServerURL": host, "Secret": token})) == (0, "")
    for said in (json.dumps({"ServerURL": host, "Secret": "other"}), "{", "[]", "[" * 100_000):
        code, why = helped(person, "store", said)
        assert (code, why.startswith("docker-credential-neuro: ")) == (1, True)
    assert helped(person, "erase", host) == (0, "")
    assert helped(person, "get", host)[0] == 0
    assert helped(person, "forget")[0] == 1


def test_nobody_is_logged_in(home: Home) -> None:
    assert helped(home, "get", "127.0.0.1:8085")[0] == 1
    assert helped(home, "list") == (0, "{}")


def test_the_rest_of_dockers_configuration_stays(person: Home, host: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"auths": {"ghcr.io": {}}, "credHelpers": {"x.io": "y"}, "z": "ä"}')
    file.chmod(0o640)

    said = person.ok("config", "docker", "--docker-config", str(tmp_path))
    again = person.ok("config", "docker", DOCKER_CONFIG=str(tmp_path))

    assert f"Configuration file {file} updated." in said
    assert again == said
    assert json.loads(file.read_text()) == {
        "auths": {"ghcr.io": {}},
        "credHelpers": {"x.io": "y", host: "neuro"},
        "z": "ä",
    }
    assert file.stat().st_mode & 0o777 == 0o640
    file.write_text("[]")
    done = person.run("config", "docker", "--docker-config", str(file))
    assert (done.returncode, "mend it" in done.stderr) == (70, True)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo (apt: skopeo)")
def test_another_program_logs_in_by_it(person: Home, host: str, tmp_path: Path) -> None:
    # What Docker's command line and skopeo share is the file and the helper; this needs no daemon.
    helper = tmp_path / "bin" / "docker-credential-neuro"
    helper.parent.mkdir()
    helper.write_text(f'#!/bin/sh\nexec {" ".join(HELPER)} "$@"\n')
    helper.chmod(0o755)
    person.ok("config", "docker", "--docker-config", str(tmp_path))
    user = json.loads(person.ok("config", "show", "--json"))["user"]

    done = subprocess.run(
        [
            *("skopeo", "list-tags", "--tls-verify=false"),
            *("--authfile", str(tmp_path / "config.json"), f"docker://{host}/{user}/absent"),
        ],
        env=person.environment(PATH=f"{helper.parent}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
    )

    # Strangers would be answered 401.
    assert "404" in done.stderr, done.stderr
