"""A server that is away for a while: waited for by every command that goes on, in one way."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from neuro.cli.outage import PATIENCE as WAITED
from neuro.cli.outage import Outage
from neuro.client.transport import ServerUnreachable, error_of
from neuro.domain.errors import NotFound, PlatformError
from tests.cli.gateway import Gateway
from tests.cli.platform import NEURO, PATIENCE, Home

GATED = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; exit 3"


def busy(seconds: int | None) -> PlatformError:
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return error_of(503, b'{"error": "The database does not answer."}', headers)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("error", "pause"),
    [(ServerUnreachable("x"), 1.0), (busy(None), 1.0), (busy(7), 7.0), (busy(3600), 30.0)],
)
def test_the_server_says_how_long_to_wait_within_bounds(error: PlatformError, pause: float) -> None:
    assert Outage().lost(error) == pause


def test_an_outage_is_said_once_with_its_reason() -> None:
    said: list[str] = []
    clock = Clock()
    outage = Outage(said.append, clock=clock)

    for error in (ServerUnreachable("x"), ServerUnreachable("x"), busy(1), ServerUnreachable("x")):
        outage.lost(error)
        clock.now += 1
    assert outage.over()
    outage.lost(busy(1))

    assert said == [
        "The server does not answer; waiting for it…",
        "The database does not answer. Waiting for the server…",
    ]


def test_a_connection_that_breaks_once_is_no_outage_to_tell_of() -> None:
    said: list[str] = []
    outage = Outage(said.append, clock=Clock())

    outage.lost(ServerUnreachable("x"))
    outage.lost(ServerUnreachable("x"))  # of another thread
    outage.over()

    assert said == []


def test_waiting_ends_and_an_answer_begins_it_anew() -> None:
    clock = Clock()
    outage = Outage(clock=clock)
    outage.lost(ServerUnreachable("first"))
    outage.over()

    clock.now = 10 * WAITED
    outage.lost(ServerUnreachable("second"))
    clock.now += WAITED + 1

    with pytest.raises(ServerUnreachable, match="third"):
        outage.lost(ServerUnreachable("third"))


def test_what_no_waiting_helps_is_raised() -> None:
    with pytest.raises(NotFound):
        Outage().lost(NotFound("x"))


def behind(gateway: Gateway, person: Home, folder: Path) -> Home:
    """The same person, who reaches the server through a gateway."""
    home = Home(folder)
    token = person.ok("config", "show-token").strip()
    home.ok("config", "login-with-token", token, f"http://127.0.0.1:{gateway.port}/api/v1")
    return home


def port_of(person: Home) -> int:
    found = re.search(r"API URL: http://[^:]+:(\d+)/", person.ok("config", "show"))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("command", ["run", "logs", "attach"])
def test_a_gateway_that_answers_503_is_waited_for(
    person: Home, tmp_path: Path, command: str
) -> None:
    with Gateway(port_of(person)) as gateway:
        home = behind(gateway, person, tmp_path / "behind")
        words = ["run", "--name", f"gated-{command}", "ubuntu", "--", "sh", "-c", GATED]
        if command != "run":
            person.ok("-q", words[0], "--detach", *words[1:])
            words = [command, f"gated-{command}"]
        with home.start(*words) as it:
            it.until("one\n")
            gateway.close()
            it.until("No server is there at present. Waiting for the server…")
            assert gateway.has_refused.wait(PATIENCE)
            gateway.open()
            person.run("exec", "-T", f"gated-{command}", "touch", "/tmp/go")
            said = it.until("two\n")

            assert it.end() == (0 if command == "logs" else 3)
        assert "one" not in said


def test_input_is_never_sent_twice_to_a_server_that_does_not_count_it(
    person: Home, tmp_path: Path
) -> None:
    port, script = port_of(person), "echo begun; for n in 1 2; do read w; echo $w; done"
    with Gateway(port, leaves_out=b"v3.channels.neu.ro,") as gateway:
        home = behind(gateway, person, tmp_path / "behind")
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [*NEURO, "-q", "run", "ubuntu", "--", "sh", "-c", script],
            env=home.environment(), stdin=reader, stdout=subprocess.PIPE,
        )  # fmt: skip
        os.close(reader)
        with process, os.fdopen(writer, "wb", buffering=0) as given:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            given.write(b"first\n")
            assert process.stdout.readline() == b"first\n"
            person.ok("down")
            person.ok("up", "--port", str(port))
            given.write(b"second\n")
            result, _ = process.communicate(timeout=PATIENCE)

    assert result == b"second\n"
