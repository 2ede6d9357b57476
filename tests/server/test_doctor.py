"""What ``neuro doctor`` asks the server's side: each layer of the fence, tried on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.sandbox import cgroups, hierarchies, nat
from neuro.engines.sandbox.firewall import Fence
from neuro.engines.sandbox.network import host_address
from tests.engines.plain_user import as_plain_user, prepare

COMMAND = [sys.executable, "-m", "neuro.server.doctor", "--data-dir"]
IN_A_NAMESPACE = pytest.mark.skipif(os.geteuid() != 0, reason="it needs root's namespaces")


def report(said: str) -> tuple[bool, dict[str, dict[str, str]]]:
    """Whether jobs can run, and the findings by their names."""
    answer: dict[str, Any] = json.loads(said)
    return answer["ready"], {finding["name"]: finding for finding in answer["findings"]}


def look(
    data_dir: Path, *before: str, **environment: str
) -> tuple[bool, dict[str, dict[str, str]]]:
    done = subprocess.run(
        [*before, *COMMAND, str(data_dir)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return report(done.stdout)


def prepared(script: str, *unshared: str) -> tuple[str, ...]:
    """Words that begin a command in namespaces where ``script`` has been run."""
    return ("unshare", *unshared, "--", "sh", "-ec", f'{script}; exec "$@"', "sh")


@dataclass
class PlainUser:
    """A user without rights who has a copy of the platform below ``folder``."""

    folder: Path
    python: str

    def look(self, data_dir: Path) -> tuple[bool, dict[str, dict[str, str]]]:
        command = [self.python, "-m", "neuro.server.doctor", "--data-dir", str(data_dir)]
        return report(as_plain_user(command, self.folder).stdout)


@pytest.fixture(scope="module")
def plain_user() -> Iterator[PlainUser]:
    folder = Path(tempfile.mkdtemp(prefix="neuro-doctor-test-"))
    yield PlainUser(folder, prepare(folder))
    shutil.rmtree(folder, ignore_errors=True)


def test_a_machine_that_runs_these_tests_is_fit_for_jobs(tmp_path: Path) -> None:
    ready, found = look(tmp_path / "data")

    assert ready
    assert {"kernel", "user namespaces", "system calls", "sandbox", "network", "disk"} <= {*found}
    assert found["sandbox"]["state"] == "ok"


def test_nothing_stays_of_a_look(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    look(tmp_path / "data")
    look(tmp_path / "not" / "there")

    assert [path for path in tmp_path.rglob("*") if path.name != "data"] == []


@IN_A_NAMESPACE
def test_an_engine_that_is_away_is_told_and_keeps_no_other_from_its_jobs(tmp_path: Path) -> None:
    data, socket = tmp_path / "data", tmp_path / "socket"
    data.mkdir()
    limits = 'cpu = 1\nmemory = "1G"\n'
    (data / "server.toml").write_text(
        f'[capacity]\n{limits}[engines.gpu]\nkind = "docker"\nhost = "unix://{socket}"\n{limits}'
    )

    ready, found = look(data)

    assert ready
    assert found["engine gpu"]["state"] == "warning"
    assert found["engine gpu"]["text"] == (
        f"It is away, and its jobs wait: the Docker daemon at {socket} does not answer"
        " (No such file or directory): start it."
    )


def test_a_settings_file_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("nonsense = 1\n")

    ready, found = look(tmp_path)

    assert not ready
    assert "server.toml" in found["settings"]["text"]


@pytest.mark.root
@IN_A_NAMESPACE
def test_a_network_that_cannot_be_is_told_with_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "apt-get").write_text("#!/bin/sh\n")
    (tools / "apt-get").chmod(0o755)

    ready, found = look(tmp_path, PATH=str(tools))
    (tmp_path / "server.toml").write_text("[network]\nshared = true\n")
    ready_then, found_then = look(tmp_path, PATH=str(tools))

    assert not ready
    assert found["network"]["state"] == "failed"
    assert found["network"]["command"] == "apt-get install nftables"
    assert ready_then
    assert found_then["network"]["state"] == "warning"


@pytest.mark.root
@IN_A_NAMESPACE
def test_a_machine_without_user_namespaces_is_told_which_setting_it_is(tmp_path: Path) -> None:
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"

    ready, found = look(tmp_path, *prepared(forbid, "--user", "--map-root-user"))

    assert not ready
    assert "user.max_user_namespaces is 0" in found["user namespaces"]["text"]
    first, second = found["user namespaces"]["command"].splitlines()
    assert first.startswith("echo user.max_user_namespaces=")
    assert second == "sysctl --system"
    assert found["sandbox"]["state"] == "failed"


@pytest.mark.root
@IN_A_NAMESPACE
def test_a_file_system_that_cannot_map_users_is_named(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    simple = prepared(f"mount -t ramfs none '{place}'", "--mount")
    shared = f"mount -t ramfs none '{place}'; printf '[sandbox]\\nshared_ids = true\\n'"

    ready, found = look(place, *simple)
    ready_then, found_then = look(place, *prepared(f"{shared} > '{place}/server.toml'", "--mount"))

    assert not ready
    assert found["id-mapped mounts"]["state"] == "failed"
    assert f"ramfs at {place}" in found["id-mapped mounts"]["text"]
    assert "shared_ids = true" in found["id-mapped mounts"]["text"]
    assert ready_then
    assert found_then["id-mapped mounts"]["state"] == "warning"
    assert "All jobs are one user of this machine" in found_then["sandbox"]["text"]


@pytest.mark.root
@IN_A_NAMESPACE
def test_a_storage_elsewhere_that_cannot_map_users_is_named(tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "place"
    data.mkdir()
    place.mkdir()
    mounted = prepared(f"mount -t ramfs none '{place}'", "--mount")
    settings = f"[storage]\nfolder = '{place}/storage'\n"  # it is not there yet

    (data / "server.toml").write_text(settings)
    ready, found = look(data, *mounted)
    (data / "server.toml").write_text(f"{settings}[sandbox]\nshared_ids = true\n")
    ready_then, found_then = look(data, *mounted)

    assert not ready
    assert found["id-mapped mounts"]["state"] == "ok"
    assert found["storage"]["state"] == "failed"
    assert f"ramfs at {place}" in found["storage"]["text"]
    assert "`folder` below [storage]" in found["storage"]["text"]
    assert "the storage's file system cannot map users" in found["sandbox"]["text"]
    assert ready_then
    assert found_then["storage"]["state"] == "warning"
    assert "the storage's file system cannot map users" in found_then["sandbox"]["text"]


@pytest.mark.root
@IN_A_NAMESPACE
@pytest.mark.timeout(120)
def test_a_plain_user_is_told_of_what_concerns_them(plain_user: PlainUser) -> None:
    home = plain_user.folder / "home"

    ready, found = plain_user.look(home / "data")

    assert ready, found
    assert "A plain user" in found["user namespaces"]["text"]
    assert "id-mapped mounts" not in found
    assert "/dev/net/tun" in found
    assert "jobs are this user" in found["sandbox"]["text"]
    assert list(home.iterdir()) == []


@pytest.mark.root
@IN_A_NAMESPACE
@pytest.mark.timeout(120)
def test_whoever_may_not_write_to_the_data_directory_is_told_who_does(
    plain_user: PlainUser, tmp_path: Path
) -> None:
    ready, found = plain_user.look(tmp_path)

    assert not ready
    assert "as the user who starts the server" in found["data folder"]["text"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rules")
def test_rules_are_looked_at_and_not_set() -> None:
    subnet = nat.choose_subnet()
    identity = os.urandom(4).hex()

    nat.prove(Fence(identity, subnet, host_address(identity, subnet), port=8085))

    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert identity not in tables.stdout


def test_control_groups_are_looked_at_and_not_made(tmp_path: Path) -> None:
    for name, text in (
        ("cgroup.controllers", "cpuset cpu io memory pids"),
        ("cgroup.subtree_control", ""),
        ("cgroup.procs", ""),
    ):
        (tmp_path / name).write_text(text)
    before = {path: path.read_text() for path in tmp_path.iterdir()}

    assert hierarchies.prospect(str(tmp_path)) == (2, {"cpu", "memory", "pids"})
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_control_groups_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").mkdir()

    assert hierarchies.prospect(str(tmp_path)) == (0, set())


def test_version_1_counts_where_its_memory_can_be_held(tmp_path: Path) -> None:
    for name in ("cpu", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("")

    assert hierarchies.prospect(str(tmp_path)) == (0, set())

    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "cgroup.procs").write_text("")

    assert hierarchies.prospect(str(tmp_path)) == (1, {"cpu", "memory", "pids"})
    assert [path.name for path in (tmp_path / "memory").iterdir()] == ["cgroup.procs"]


def test_a_look_promises_what_a_server_then_gets() -> None:
    promised, _ = hierarchies.prospect()
    groups = hierarchies.find("d0c70123")
    try:
        assert groups.version == promised
    finally:
        cgroups.remove_bases(groups)
