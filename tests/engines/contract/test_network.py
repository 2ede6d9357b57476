"""Two jobs may listen on the same port; ``connect`` reaches a job's own 127.0.0.1; neighbours."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.base import Connects, NotListening, RunNotFound, RunRef
from tests.engines.harness import PATIENCE, EngineKind, Has, Runs, needs

pytestmark = needs(Has.PROGRAMS, Connects)

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


OPEN = """
import socket, sys
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.connect(("192.0.2.99", 9))
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("address", probe.getsockname()[0], "listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"hello")
    connection.close()
"""

ASK = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).recv(10).decode())
except OSError as error:
    print("refused", error)
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


@needs(Has.FENCE)
async def test_two_jobs_listen_on_the_same_port(runs: Runs) -> None:
    if shared(runs):
        pytest.skip("jobs share the host's network here")
    port = free_port()
    first, second = await serve(runs, port, "a"), await serve(runs, port, "b")

    assert await ask(runs, first, port, b"x") == b"a:x"
    assert await ask(runs, second, port, b"x") == b"b:x"


async def test_a_port_without_a_listener_is_refused(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    with pytest.raises(NotListening):
        await runs.engine.connect(ref.job_id, free_port())


@needs(Has.FENCE)
async def test_a_port_of_the_host_is_not_the_jobs(runs: Runs) -> None:
    ref = await runs.start("sleep", "600")

    with socket.create_server(("127.0.0.1", 0)) as ours, pytest.raises(NotListening):
        await runs.engine.connect(ref.job_id, ours.getsockname()[1])


async def test_what_does_not_run_cannot_be_connected_to(runs: Runs) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await runs.engine.connect(job_id, 80)


@needs(Has.FENCE)
async def test_names_can_be_looked_up(runs: Runs) -> None:
    script = "import socket; print(socket.gethostbyname('localhost'), socket.gethostname())"

    done = await runs.run("python3", "-c", script, hostname="trainer")

    assert done.output == b"127.0.0.1 trainer\n"
    assert b"nameserver" in (await runs.shell("cat /etc/resolv.conf; true")).output


async def serve_everybody(runs: Runs, **options: Any) -> tuple[RunRef, str, int]:
    """A run that answers whoever reaches it, its address and its port."""
    port = free_port()
    ref = await runs.start("python3", "-c", OPEN, str(port), **options)
    said = await runs.says(ref.job_id, b"listening")
    return ref, said.split()[1].decode(), port


async def asked(runs: Runs, where: str, port: int, **options: Any) -> str:
    """What a new run is answered there."""
    done = await runs.run("python3", "-c", ASK, where, str(port), **options)
    return done.output.decode().strip()


@needs(Has.FENCE)
@pytest.mark.root
async def test_jobs_of_others_are_out_of_reach(runs: Runs) -> None:
    _, address, port = await serve_everybody(runs, neighbours="bob", names=("theirs",))
    _, nobodys, other = await serve_everybody(runs)

    for neighbours in ("alice", ""):
        assert (await asked(runs, address, port, neighbours=neighbours)).startswith("refused")
        assert (await asked(runs, nobodys, other, neighbours=neighbours)).startswith("refused")
        assert "not known" in await asked(runs, "theirs", port, neighbours=neighbours)


@needs(Has.FENCE)
@pytest.mark.root
async def test_neighbours_reach_each_other_by_name(runs: Runs) -> None:
    names = ("job-1", "job-1.platform-jobs", "trainer--alice.platform-jobs", "trainer")
    _, address, port = await serve_everybody(runs, neighbours="alice", names=names)

    for name in (*names, address):
        assert await asked(runs, name, port, neighbours="alice", names=("asker",)) == "hello"


@needs(Has.FENCE)
@pytest.mark.root
async def test_a_run_knows_itself_and_who_came_later(runs: Runs) -> None:
    first = await runs.start("sleep", "600", neighbours="alice", names=("first",))
    _, address, port = await serve_everybody(runs, neighbours="alice", names=("second",))

    code, said, _ = await runs.execute(first, "python3", "-c", ASK, "second", str(port))
    assert (code, said) == (0, b"hello\n")
    code, said, _ = await runs.execute(first, "getent", "ahostsv4", "first", "localhost")
    assert code == 0
    assert address.encode() not in said
    assert b"127.0.0.1" in said


@needs(Has.FENCE)
@pytest.mark.root
async def test_a_run_that_is_over_is_forgotten(runs: Runs) -> None:
    gone, _, _ = await serve_everybody(runs, neighbours="alice", names=("gone",))
    stays = await runs.start("sleep", "600", neighbours="alice", names=("stays",))
    assert (await runs.execute(stays, "getent", "hosts", "gone"))[0] == 0

    await runs.engine.stop(gone, 0)
    await runs.exited(gone)

    assert (await runs.execute(stays, "getent", "hosts", "gone"))[0] != 0


@needs(Has.FENCE)
@pytest.mark.root
async def test_neighbours_stay_neighbours_when_the_server_starts_anew(
    kind: EngineKind, folder: Path
) -> None:
    engine = kind.make(folder)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    _, _, port = await serve_everybody(runs, neighbours="alice", names=("old",))
    await runs.start("sleep", "600", neighbours="bob", names=("bobs",))
    going = [event.ref for event in runs.told]
    await runs.close()

    again = kind.make(folder)
    await again.open()
    await again.adopt(going)
    runs = Runs(again)
    try:
        assert await asked(runs, "old", port, neighbours="alice") == "hello"
        assert (await asked(runs, "old", port, neighbours="carol")).startswith("refused")
    finally:
        for ref in going:
            await again.stop(ref, 0)
        for ref in going:
            await runs.exited(ref)
        await runs.close()


@needs(Has.FENCE, Has.HOST_FENCE)
@pytest.mark.root
async def test_the_hosts_own_services_are_out_of_reach(runs: Runs) -> None:
    host = runs.engine.host_address
    for where in ("0.0.0.0", host):
        with socket.create_server((where, 0)) as service:
            port = service.getsockname()[1]
            with socket.create_connection((host, port), 3):  # the host itself reaches it
                assert (await asked(runs, host, port)).startswith("refused")


LOW = """
import socket
with socket.create_server(("0.0.0.0", 80)) as server:
    client = socket.create_connection(("127.0.0.1", 80), 3)
    server.accept()[0].close()
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as ping:
    ping.sendto(b"\\x08\\0\\0\\0\\0\\0\\0\\0", ("127.0.0.1", 0))
"""


@needs(Has.FENCE)
async def test_root_of_a_job_listens_at_any_port_and_pings(runs: Runs) -> None:
    done = await runs.run("python3", "-c", LOW)

    assert (done.code == 0) != shared(runs), done.output
