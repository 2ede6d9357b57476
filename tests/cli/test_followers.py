"""Commands that follow: over a restart of the server, and until nobody reads them any more."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import NEURO, PATIENCE, Home

LINES = "for n in 1 2 3 4 5; do echo line $n; done; printf unfinished"
GATED = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("followed") / "home").with_platform() as home:
        yield home


def gated_job(home: Home) -> str:
    """A job that prints one, and two once ``let_on`` was called."""
    return home.ok("-q", "run", "--detach", "host", "--", "sh", "-c", GATED).strip()


def let_on(home: Home, job: str) -> None:
    # The job may see the file and end before the command that made it does.
    home.run("exec", "-T", job, "touch", "/tmp/go")


def restart(home: Home) -> None:
    port = home.ok("server", "status").split("127.0.0.1:")[1].split("/")[0]
    home.ok("down")
    home.ok("up", "--port", port)


@pytest.mark.parametrize("options", [(), ("--tail", "1"), ("--timestamps",)])
def test_logs_outlive_a_restart_of_the_server(running: Home, options: tuple[str, ...]) -> None:
    job = gated_job(running)

    with running.start("logs", *options, job) as it:
        it.until("one\n")
        restart(running)
        let_on(running, job)
        said = it.until("two\n")

        assert it.end() == 0
    assert "one" not in said
    assert "IncompleteRead" not in said


def test_top_outlives_a_restart_of_the_server(running: Home) -> None:
    job = gated_job(running)

    with running.start("top", job) as it:
        it.until(job)
        port = running.ok("server", "status").split("127.0.0.1:")[1].split("/")[0]
        running.ok("down")
        said = it.until("The server does not answer; waiting for it…")
        running.ok("up", "--port", port)
        it.until(job)
        let_on(running, job)

        assert it.end() == 0
    assert "Connect call failed" not in said


def test_the_last_lines_are_an_option(running: Home) -> None:
    job = running.ok("-q", "run", "--detach", "ubuntu", "--", "sh", "-c", LINES).strip()
    running.ok("logs", job)

    assert running.ok("logs", "--tail", "2", job) == "line 5\nunfinished"
    assert running.ok("logs", "--tail", "0", job) == ""
    assert running.ok("logs", "--tail", "99", job) == running.ok("logs", job)
    timed = running.ok("logs", "--tail", "2", "--timestamps", job).splitlines()
    assert [line.partition(" ")[2] for line in timed] == ["line 5", "unfinished"]


def test_what_there_is_can_be_had_of_a_job_that_runs(running: Home) -> None:
    job = gated_job(running)
    with running.start("logs", job) as it:
        it.until("one\n")

    assert running.ok("logs", "--no-follow", job) == "one\n"
    assert "Status: running" in running.ok("status", job)
    let_on(running, job)


def test_logs_of_a_silent_job_end_when_their_reader_is_gone(running: Home, tmp_path: Path) -> None:
    job = gated_job(running)
    reader, writer = os.pipe()
    following = subprocess.Popen(
        [*NEURO, "logs", job],
        env=running.environment(),
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert os.read(reader, 100) == b"one\n"

    os.close(reader)

    assert following.communicate(timeout=PATIENCE) == (None, b"")
    assert following.returncode == 0
    let_on(running, job)


def test_a_server_that_is_not_there_is_said_in_the_systems_words(running: Home) -> None:
    running.ok("down")
    try:
        for words in (("logs", f"job-{'0' * 8}-0000-0000-0000-{'0' * 12}"), ("top",)):
            done = running.run(*words)

            assert done.returncode == 74
            assert "Connection refused. Is it running?" in done.stderr
    finally:
        running.ok("up", "--port", "0")
