"""What all tests share: which of them this machine can run, and a real database server."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.engines import docker_daemon
from tests.postgres import PostgresServer, find_binaries
from tests.server_process import ServerProcess

# A test that finds out how fast the machine is just now fails on a busy one.
hypothesis.settings.register_profile("busy", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("busy")

# What takes longest begins first, so that no worker is left with it at the end: a file is one
# worker's. The fast half of the tests is without it.
_LONGEST = (
    "engines/test_as_a_plain_user.py",
    "faults",
    "servers",
    "clients",
    "actions/test_bundled.py",
    "engines",
    "flow/cli",
    "security",
    "actions",
    "server/test_backups.py",
    "server/test_copies.py",
    "server/test_damaged_database.py",
    "server/test_doctor.py",
    "server/test_full_disk.py",
    "server/test_database_mistakes.py",
    "server/test_crash.py",
    "server/test_every_operation.py",
    "cli/test_server_process.py",
    "cli/test_completion.py",
    "server/test_removed_people.py",
    "server/test_supervision_silence.py",
    "server/test_gpus.py",
    "server/test_schedules.py",
    "server/test_live_streams_revoked.py",
    "server/test_bakes.py",
    "server/test_bakes_access.py",
    "storage/test_transfers.py",
    "storage/test_interrupts.py",
    "server/test_sharing.py",
    "server/access",
    "server/test_supervision.py",
    "server/test_engines.py",
    "server/test_stopping.py",
    "server/test_taken_away.py",
    "server/test_main_job_crash.py",
)
# Fixtures that are whole platforms, each with its command line: not of the fast half either.
_PLATFORMS = {"platform", "running"}
_HERE = Path(__file__).parent

ServerProcess.forks = True

# Shells have what runs in the background ignore Ctrl-C, and all that it starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests, and skip what this machine cannot run, with the reason.

    CI has everything and skips nothing, unless it cannot have a Docker daemon.
    """
    turns = {path: _turn(path) for path in {item.path for item in items}}
    for item in items:
        is_live = isinstance(item, pytest.Function) and _PLATFORMS & {*item.fixturenames}
        if turns[item.path] < len(_LONGEST) or is_live:
            item.add_marker(pytest.mark.slow)
    # Then the files of the others that take long, wherever they are.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (turns[item.path], item.path not in slow))
    # Where CI runs in a container, that may not have containers in it.
    for kind in ("docker", "podman"):
        if reason := docker_daemon.lacking(kind):
            for item in items:
                if item.get_closest_marker(kind):
                    item.add_marker(pytest.mark.skip(reason=reason))
    if os.environ.get("CI"):
        return
    not_root = pytest.mark.skip(reason="needs root")
    no_postgres = pytest.mark.skip(
        reason="needs PostgreSQL's initdb and postgres (apt: postgresql)"
    )
    no_compiler = pytest.mark.skip(reason="needs a C compiler (apt: gcc libc6-dev)")
    for item in items:
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(not_root)
        if item.get_closest_marker("postgres") and find_binaries() is None:
            item.add_marker(no_postgres)
        if item.get_closest_marker("compiler") and shutil.which("cc") is None:
            item.add_marker(no_compiler)


def _turn(path: Path) -> int:
    where = path.relative_to(_HERE)
    for number, place in enumerate(_LONGEST):
        if where.is_relative_to(place):
            return number
    return len(_LONGEST)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this test run's own, on a Unix socket, gone at its end."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL of the server's maintenance database; see ``database_url`` for one to write to."""
    return postgres_server.url("postgres")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, once in a SQLite file and once on a PostgreSQL server."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'database.sqlite'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with server.database() as url:
        yield url
