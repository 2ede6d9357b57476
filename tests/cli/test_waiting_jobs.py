"""What commands say of a job that has not started."""

from __future__ import annotations

import pytest

from tests.cli.platform import Home

EVERYTHING = ("--preset", "cpu-large", "ubuntu")


@pytest.fixture
def waiting(person: Home) -> str:
    """A job behind another one, ``first``, that has the whole machine; its id."""
    person.ok("run", "--detach", "--name", "first", *EVERYTHING, "sleep", "100")
    serve = ("python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "8000")
    return person.ok("-q", "run", "--no-wait-start", "--name", "late", *EVERYTHING, *serve).strip()


def test_its_output_is_waited_for_and_that_is_said(person: Home, waiting: str) -> None:
    with person.start("logs", "late") as log:
        log.until("Job late has not started yet: its output follows once it runs.")
        log.until("`neuro status late`")
        person.ok("kill", "first")
        log.until("Serving HTTP on 127.0.0.1 port 8000")


def test_without_following_it_is_said_that_there_is_no_output(person: Home, waiting: str) -> None:
    done = person.run("logs", "--no-follow", waiting)

    assert (done.returncode, done.stdout) == (0, "")
    assert f"Job {waiting} has not started yet: it has no output." in done.stderr


def test_a_port_is_forwarded_once_it_runs(person: Home, waiting: str) -> None:
    with person.start("port-forward", "late", "18765:8000") as forwarding:
        assert "forwarded" not in forwarding.until("Status: pending")
        person.ok("kill", "first")
        assert "forwarded" not in forwarding.until("Status: running")
        forwarding.until("localhost:18765 will be forwarded")
        forwarding.interrupt()
        assert forwarding.end() == 0


def test_what_needs_it_running_names_it_and_its_state(person: Home, waiting: str) -> None:
    top = person.run("top", "late")
    page = person.run("job", "browse", "late")

    assert top.returncode == page.returncode == 65
    assert top.stderr == (
        "ERROR: Job late is not running (pending).\n`neuro status late` says more.\n"
    )
    assert "Job late has not started yet (pending): it has no page now." in page.stderr


def test_even_a_quiet_start_says_once_what_it_waits_for(person: Home, waiting: str) -> None:
    with person.start("-q", "run", "--detach", *EVERYTHING, "true") as start:
        said = start.until("WARNING: Job job-")
        assert "Status" not in said
        start.until(" waits: ")
        person.ok("kill", "first", "late")
        assert start.end() == 0
        assert "WARNING" not in start.shown
