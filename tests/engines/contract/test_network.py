"""Two jobs may listen on the same port; ``connect`` reaches a job's own 127.0.0.1."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from neuro.engines.base import NotListening, RunNotFound, RunRef
from tests.engines.harness import PATIENCE, Runs

SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    connection.sendall(sys.argv[2].encode() + b":" + data)
    connection.close()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def serve(runs: Runs, port: int, name: str) -> RunRef:
    ref = await runs.start("python3", "-c", SERVER, str(port), name)
    await runs.says(ref.job_id, b"listening")
    return ref


async def ask(runs: Runs, ref: RunRef, port: int, data: bytes) -> bytes:
    connection = await runs.engine.connect(ref.job_id, port)
    await connection.write(data)
    await connection.write_eof()
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while chunk := await connection.read():
            answer += chunk
    await connection.close()
    return answer


def shared(runs: Runs) -> bool:
    """Whether this machine gives this user no networks of their own."""
    notices: Any = getattr(runs.engine, "notices", [])
    return any("share the host's network" in notice for notice in notices)


async def test_connect_reaches_the_jobs_own_loopback(runs: Runs) -> None:
    port = free_port()
    ref = await serve(runs, port, "a")

    assert await ask(runs, ref, port, b"hello") == b"a:hello"


async def test_much_data_goes_both_ways(runs: Runs) -> None:
    port = free_port()
    ref = await serve(runs, port, "a")
    data = bytes(range(256)) * 20_000

    assert await ask(runs, ref, port, data) == b"a:" + data


async def test_many_connections_at_once(runs: Runs) -> None:
    port = free_port()
    ref = await serve(runs, port, "a")

    answers = await asyncio.gather(*(ask(runs, ref, port, b"%d" % i) for i in range(30)))

    assert answers == [b"a:%d" % i for i in range(30)]


async def test_two_jobs_listen_on_the_same_port(runs: Runs) -> None:
    if shared(runs):
        pytest.skip("jobs share the host's network here")
    port = free_port()
    first, second = await serve(runs, port, "a"), await serve(runs, port, "b")

    assert await ask(runs, first, port, b"x") == b"a:x"
    assert await ask(runs, second, port, b"x") == b"b:x"


async def test_a_port_that_is_taken_is_explained(runs: Runs) -> None:
    if not shared(runs):
        pytest.skip("jobs have networks of their own here")
    port = free_port()
    await serve(runs, port, "a")

    done = await runs.run("python3", "-c", SERVER, str(port), "b")

    assert done.code == 1
    assert "port" in (done.exited.message or "")


async def test_a_port_without_a_listener_is_refused(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    with pytest.raises(NotListening):
        await runs.engine.connect(ref.job_id, free_port())


async def test_a_port_of_the_host_is_not_the_jobs(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    with socket.create_server(("127.0.0.1", 0)) as ours, pytest.raises(NotListening):
        await runs.engine.connect(ref.job_id, ours.getsockname()[1])


async def test_what_does_not_run_cannot_be_connected_to(runs: Runs) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await runs.engine.connect(job_id, 80)


async def test_names_can_be_looked_up(runs: Runs) -> None:
    script = "import socket; print(socket.gethostbyname('localhost'), socket.gethostname())"

    done = await runs.run("python3", "-c", script, hostname="trainer")

    assert done.output == b"127.0.0.1 trainer\n"
    assert b"nameserver" in (await runs.shell("cat /etc/resolv.conf; true")).output
