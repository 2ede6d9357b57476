"""Logs, exec, attach, telemetry and ports, without a terminal.

See docs/reference/wire-protocol.md#monitoring.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest

from tests.clients.reference_client import ReferenceClient

Named = Callable[[str], str]


@pytest.fixture(scope="module")
def talker(client: ReferenceClient) -> str:
    """A job that printed two lines and is over."""
    return client.run("run", "ubuntu", "--", "sh", "-c", "echo first; echo second").job_id


def test_the_log_of_a_finished_job_is_complete(client: ReferenceClient, talker: str) -> None:
    assert client.run("logs", talker).out == "first\nsecond\n"


def test_lines_of_a_log_have_their_times(client: ReferenceClient, talker: str) -> None:
    lines = client.run("logs", "--timestamps", talker).lines

    assert [line.split(" ", 1)[1] for line in lines] == ["first", "second"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z ", line) for line in lines)


def test_a_log_begins_where_it_is_asked_to(client: ReferenceClient, talker: str) -> None:
    assert client.run("logs", "--since", "1h", talker).out == "first\nsecond\n"
    assert client.run("logs", "--since", "2100-01-01T00:00:00Z", talker).out == ""


def test_the_log_of_an_unknown_job_is_not_found(client: ReferenceClient) -> None:
    assert client.run("logs", "no-such-job", ok=False).code == 72


def test_a_log_is_followed_to_the_end_of_the_job(client: ReferenceClient) -> None:
    script = "echo waiting; until test -e /tmp/go; do sleep 0.05; done; echo over"
    job = client.submit("ubuntu", "--", "sh", "-c", script)

    with client.started("logs", job) as following:
        following.expect("waiting")
        # The job may see the file and end before the command that made it does.
        client.run("exec", job, "--", "touch", "/tmp/go", ok=False)
        outcome = following.wait()

    assert (outcome.code, outcome.out) == (0, "waiting\nover\n")


def test_exec_has_its_own_output_and_exit_code(client: ReferenceClient, sleeper: str) -> None:
    outcome = client.run(
        "exec", sleeper, "--", "sh", "-c", "echo out; echo err >&2; exit 5", ok=False
    )

    assert (outcome.code, outcome.out, outcome.err) == (5, "out\n", "err\n")


def test_exec_into_what_is_over_or_unknown_is_refused(client: ReferenceClient, talker: str) -> None:
    assert client.run("exec", talker, "--", "true", ok=False).code == 72
    assert client.run("exec", "no-such-job", "--", "true", ok=False).code == 72


def test_attaching_shows_what_comes_from_now_on(client: ReferenceClient) -> None:
    script = "echo before; until test -e /tmp/go; do echo again; sleep 0.05; done; echo end; exit 4"
    job = client.submit("ubuntu", "--", "sh", "-c", script)

    with client.started("attach", job) as attached:
        attached.expect("again")
        # The job may see the file and end before the command that made it does.
        client.run("exec", job, "--", "touch", "/tmp/go", ok=False)
        outcome = attached.wait()

    assert outcome.code == 4
    assert outcome.lines.count("end") == 1


def test_attaching_to_what_is_over_ends_with_its_exit_code(client: ReferenceClient) -> None:
    failed = client.run("run", "ubuntu", "--", "sh", "-c", "exit 9", ok=False).job_id

    assert client.run("attach", failed, ok=False).code == 9


def test_top_measures_until_its_time_is_up(client: ReferenceClient, sleeper: str) -> None:
    outcome = client.run("top", sleeper, "--timeout", "3", ok=False)

    assert outcome.code == 124, "its way to end"
    row = next(line.split() for line in outcome.lines if "job-" in line)
    memory = float(row[-3])
    assert 0 < memory < 256, "MB"


SHOUT = """
import socketserver
class Shout(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line.upper())
server = socketserver.ThreadingTCPServer(("127.0.0.1", 8000), Shout)
print("up", flush=True)
server.serve_forever()
"""


def test_a_port_of_the_job_is_a_port_here(client: ReferenceClient) -> None:
    job = client.submit("ubuntu", "--", "python3", "-c", SHOUT)
    with client.started("logs", job) as following:
        following.expect("up")
    here = _free_port()

    with client.started("port-forward", job, f"{here}:8000") as forwarding:
        forwarding.expect("Press ^C")
        with _connect(here) as one, _connect(here) as two:
            one.sendall(b"one\n")
            two.sendall(b"two\n" * 50_000)
            assert _receive(one, 4) == b"ONE\n"
            assert _receive(two, 200_000) == b"TWO\n" * 50_000

    client.run("kill", job)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.settimeout(30)
    return connection


def _receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size and (data := connection.recv(1 << 16)):
        received += data
    return bytes(received)
