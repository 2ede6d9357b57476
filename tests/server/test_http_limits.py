"""One caller's slow or many requests are theirs: others go on, and late ones are ended."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from neuro.client import Client
from neuro.client.transport import Request
from neuro.domain.errors import TooManyRequests
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.http.bodies import Pace
from neuro.server.http.budgets import Budgets
from neuro.server.http.connections import Patience
from neuro.server.http.errors import render_errors
from neuro.server.http.limits import backpressure
from neuro.server.http.routes import AUTHENTICATOR, Call, Routes, install
from neuro.server.listening import bind, listen
from tests.server.jobs import finished, submit
from tests.server_process import SETTINGS, ServerProcess, running_server

LIMITS = """
[limits]
requests_per_user = 8
streams_per_user = 4
connections_per_address = 40
active_jobs_per_owner = 3
head = 1.0
body_stall = 1.0
idle = 1.5
"""
BODY = b'{"image": "ubuntu", "name": "X"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with little patience and small budgets."""
    folder = tmp_path_factory.mktemp("data")
    with running_server(folder, settings=SETTINGS + LIMITS) as server:
        yield server


class Peer:
    """A connection that says what it likes, when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, raw: bytes) -> None:
        self._writer.write(raw)
        await self._writer.drain()

    async def begin(
        self, token: str | None, length: int, path: str = "/api/v1/jobs", method: str = "POST"
    ) -> None:
        """Send the head of a request with a body of ``length`` bytes."""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        if token is not None:
            head += f"Authorization: Bearer {token}\r\n"
        await self.send(head.encode() + b"\r\n")

    async def answer(self) -> tuple[int, bytes]:
        """The status of the next answer, and its body."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        ]
        return int(head.split()[1]), await self._reader.readexactly(lengths[0])

    async def rest(self) -> bytes:
        """All until the server closes the connection."""
        with contextlib.suppress(ConnectionError):
            return await self._reader.read()
        return b""

    def close(self) -> None:
        self._writer.close()


class Peers:
    def __init__(self, port: int) -> None:
        self._port = port
        self.all: list[Peer] = []

    async def connect(self) -> Peer:
        peer = Peer(*await asyncio.open_connection("127.0.0.1", self._port))
        self.all.append(peer)
        return peer


@pytest.fixture
async def peers(server: ServerProcess) -> AsyncIterator[Peers]:
    peers = Peers(server.port)
    yield peers
    for peer in peers.all:
        peer.close()


async def token_of(client: Client, user: str) -> str:
    return (await client.users.create_token(user)).token or ""


async def test_connections_that_never_finish_a_head_are_closed(peers: Peers) -> None:
    slow = [await peers.connect() for _ in range(20)]
    for peer in slow[:10]:
        await peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")

    answers = await asyncio.wait_for(asyncio.gather(*(peer.rest() for peer in slow)), 10)

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["code"] == "too_slow"


async def test_a_head_that_drips_is_late_all_the_same(peers: Peers) -> None:
    peer = await peers.connect()

    await peer.send(b"GET /health HTTP/1.1\r\nX-Slow: ")

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(b"x")
                await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    answer = await asyncio.wait_for(peer.rest(), 10)
    dripping.cancel()

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_the_head_of_a_second_request_has_its_time_too(peers: Peers) -> None:
    peer = await peers.connect()
    await peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.answer())[0] == 200
    await peer.send(b"GET /health HTTP/1.1\r\nHost")

    assert (await asyncio.wait_for(peer.rest(), 10)).startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed(peers: Peers) -> None:
    peer = await peers.connect()
    await peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await peer.answer())[0] == 200

    assert await asyncio.wait_for(peer.rest(), 10) == b""


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/storage/USER/file?op=CREATE"])
async def test_a_body_that_stands_still_is_given_up(
    server: ServerProcess, peers: Peers, path: str
) -> None:
    peer = await peers.connect()
    method = "PUT" if "storage" in path else "POST"
    await peer.begin(server.token, 100, path.replace("USER", server.user), method)
    await peer.send(b"{")

    status, body = await asyncio.wait_for(peer.answer(), 10)

    assert status == 408
    assert json.loads(body)["error"].startswith("The body did not arrive in time")
    peer.close()


async def test_a_body_that_drips_is_given_up(server: ServerProcess, peers: Peers) -> None:
    peer = await peers.connect()
    await peer.begin(server.token, 1 << 19)

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await peer.send(b" ")
                await asyncio.sleep(0.1)

    dripping = asyncio.create_task(drip())
    status, _ = await asyncio.wait_for(peer.answer(), 10)
    dripping.cancel()

    assert status == 408


async def test_an_upload_may_take_long_while_it_gets_on(
    server: ServerProcess, peers: Peers, client: Client
) -> None:
    peer = await peers.connect()
    path = f"/api/v1/storage/{server.user}/slow?op=CREATE"
    await peer.begin(server.token, 20, path, "PUT")
    for _ in range(20):  # Two stalls long, at a rate that no body of JSON may have.
        await peer.send(b"x")
        await asyncio.sleep(0.1)

    assert (await peer.answer())[0] == 201


async def test_slow_bodies_of_one_person_hold_nobody_else_up(
    server: ServerProcess, client: Client, alice: Client, peers: Peers
) -> None:
    alices = await token_of(client, "alice")
    slow = [await peers.connect() for _ in range(20)]
    for peer in slow:
        await peer.begin(alices, len(BODY))
    # Of these, twelve are one too many, and are told so at once.
    first, pending = await asyncio.wait(
        [asyncio.create_task(peer.answer()) for peer in slow], timeout=0.7
    )

    assert [task.result()[0] for task in first] == [429] * 12
    # Without the SDK's own patience: by its end the slow ones are over.
    call = Request(method="GET", path="/users/alice")
    with pytest.raises(TooManyRequests, match="8 requests of yours are in progress") as caught:
        async with alice.transport.send(call):
            pass
    assert caught.value.retry_after == 1
    assert (await asyncio.wait_for(alice.users.get("alice"), 10)).name == "alice"
    async with aiohttp.ClientSession() as http:
        for path in ("/health", "/ready", "/metrics", "/api/v1/ping"):
            async with http.get(f"http://127.0.0.1:{server.port}{path}") as response:
                assert response.status == 200
    job = await submit(client, "true")
    await finished(client, job)
    assert [status for status, _ in await asyncio.gather(*pending)] == [408] * 8
    # Their places are free again.
    async with alice.transport.send(call) as response:
        assert response.status == 200


async def test_streams_of_one_person_have_a_budget_of_their_own(
    server: ServerProcess, client: Client, alice: Client
) -> None:
    headers = {"Authorization": f"Bearer {await token_of(client, 'alice')}"}
    others = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/jobs/events"
    async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as stack:
        statuses = [
            (await stack.enter_async_context(http.get(url, headers=headers))).status
            for _ in range(5)
        ]
        async with http.get(url, headers=others) as response:
            statuses.append(response.status)

    assert statuses == [200, 200, 200, 200, 429, 200]


async def test_whoever_holds_all_connections_of_an_address_keeps_no_other_out(
    server: ServerProcess, peers: Peers, client: Client
) -> None:
    held = [await peers.connect() for _ in range(60)]

    # A connection of its own: the client's may have been open before these.
    async with Client.connect(server.url, server.token) as other:
        assert (await other.users.get(server.user)).name == server.user
    # The oldest were closed for the others, without a word.
    early = await asyncio.wait_for(asyncio.gather(*(peer.rest() for peer in held[:15])), 10)
    assert set(early) == {b""}


class Anybody:
    """Every token is valid."""

    async def authenticate(self, token: str) -> Identity:
        return Identity("anna", Grants(()), token)


class Full:
    """A small application on a real socket, which ``connections`` at once may reach."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.stack = contextlib.AsyncExitStack()
        self.held: asyncio.Queue[str] = asyncio.Queue()

    async def connect(self, host: int) -> Peer:
        """A connection from the address ``127.0.1.HOST``."""
        local = (f"127.0.1.{host}", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=local)
        self.stack.callback(writer.close)
        return Peer(reader, writer)

    async def ask(self, peer: Peer, path: str, token: str = "") -> int:
        """The status of the answer to a request."""
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\n"
        await peer.send((head + (f"Authorization: Bearer {token}\r\n" if token else "")).encode())
        await peer.send(b"\r\n")
        return (await asyncio.wait_for(peer.answer(), 10))[0]


@pytest.fixture
async def full() -> AsyncIterator[Full]:
    """Eight connections may be open; ``/held`` is never answered."""
    listener = bind("127.0.0.1", 0)
    full = Full(listener.getsockname()[1])
    routes = Routes("tests")

    @routes.add("GET", "/mine", inside="Nothing of anybody's.")
    async def mine(call: Call) -> str:
        """Say so."""
        return "here"

    @routes.add("GET", "/held", inside="Nothing of anybody's.")
    async def held(call: Call) -> str:
        """Say nothing."""
        full.held.put_nowait(call.user)
        await asyncio.Event().wait()
        return "never"

    app = web.Application(middlewares=[render_errors])
    app[AUTHENTICATOR] = Anybody()
    install(app, routes.items)
    async with contextlib.AsyncExitStack() as stack:
        await listen(stack, app, [listener], Patience(connections=8))
        async with full.stack:
            yield full


async def test_strangers_of_many_addresses_make_room_for_the_next(full: Full) -> None:
    known = await full.connect(1)
    assert await full.ask(known, "/mine", "token") == 200
    refused = await full.connect(2)
    assert await full.ask(refused, "/mine") == 401
    strangers = [await full.connect(host) for host in range(3, 43)]
    for peer in strangers:
        await peer.send(b"GET /mine HTTP/1.1\r\nX-Slow: ")

    newest = await full.connect(50)

    assert await full.ask(newest, "/mine", "token") == 200
    assert await full.ask(known, "/mine", "token") == 200
    gone = asyncio.gather(*(peer.rest() for peer in (refused, *strangers[:33])))
    assert set(await asyncio.wait_for(gone, 10)) == {b""}


async def test_one_more_than_all_connections_are_at_work_is_closed(full: Full) -> None:
    idle = await full.connect(1)
    assert await full.ask(idle, "/mine", "token") == 200
    head = b"GET /held HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n\r\n"
    for host in range(2, 10):
        await (await full.connect(host)).send(head)
        await asyncio.wait_for(full.held.get(), 10)
    assert await asyncio.wait_for(idle.rest(), 10) == b""

    one_more = await full.connect(20)

    assert await asyncio.wait_for(one_more.rest(), 10) == b""


async def test_one_person_has_so_many_active_jobs(client: Client, alice: Client) -> None:
    jobs = [await submit(alice, "sleep 1000") for _ in range(3)]

    with pytest.raises(TooManyRequests, match="3 jobs of 'alice' are active already"):
        await submit(alice, "true")
    other = await submit(client, "true")
    await alice.jobs.kill(jobs[0].id)
    await finished(alice, jobs[0])
    jobs.append(await submit(alice, "true"))
    for job in [*jobs[1:], other]:
        await client.jobs.kill(job.id)
        await finished(client, job)


def garbage() -> list[bytes]:
    chunked = b"POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    return [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization: Bearer secret-word\r\nX\x00: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        chunked,
    ]


async def test_malformed_requests_cost_the_log_a_line_and_show_it_nothing(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path / "data", settings=SETTINGS) as server:
        before = len(server.log())
        peers = Peers(server.port)
        for _ in range(20):
            for raw in garbage():
                peer = await peers.connect()
                await peer.send(raw)
                answer = await asyncio.wait_for(peer.rest(), 15)
                assert answer.split()[1] == b"400", raw
                peer.close()
        grown = server.log()[before:]

    lines = [json.loads(line) for line in grown.splitlines()]
    malformed = [line for line in lines if line["event"] == "malformed requests"]
    assert len(malformed) == 1
    assert len(grown) < 2000
    assert "secret-word" not in server.log()
    assert "Traceback" not in server.log()


async def test_a_body_that_is_malformed_is_refused_and_not_a_failure(
    server: ServerProcess, peers: Peers
) -> None:
    peer = await peers.connect()
    head = "POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += f"Authorization: Bearer {server.token}\r\n\r\n"
    await peer.send(head.encode() + b'5\r\n{"ima\r\nzz\r\n')

    status, _ = await asyncio.wait_for(peer.answer(), 10)

    assert status == 400
    assert "Traceback" not in server.log()


async def test_a_server_that_is_full_still_answers_those_who_watch_it() -> None:
    routes = Routes("tests")

    @routes.add("GET", "/watched", public=True, probe=True)
    async def watched(call: Call) -> str:
        """For whoever watches."""
        return "alive"

    @routes.add("GET", "/asked", public=True)
    async def asked(call: Call) -> str:
        """For all others."""
        return "here"

    app = web.Application(middlewares=[render_errors, backpressure(requests=0, streams=0)])
    install(app, routes.items, budgets=Budgets(requests=0, streams=0))
    async with TestClient(TestServer(app)) as client:
        statuses = [(await client.get(path)).status for path in ("/watched", "/asked")]

    assert statuses == [200, 429]


def test_a_person_and_their_service_accounts_share_a_budget() -> None:
    budgets, nothing = Budgets(requests=2), Grants(())
    anna, robot, boris = (Identity(it, nothing, "t") for it in ("anna", "anna--robot", "boris"))

    with (
        budgets.share(anna, "", is_stream=False),
        budgets.share(robot, "", is_stream=False),
        budgets.share(boris, "", is_stream=False),
        pytest.raises(TooManyRequests),
        budgets.share(robot, "", is_stream=False),
    ):
        pass


LARGE = bytes(64 << 20)  # more than the buffers of two sockets take


@contextlib.asynccontextmanager
async def _large_answers(
    budgets: Budgets, pace: Pace, cut: asyncio.Event | None = None
) -> AsyncIterator[tuple[str, int]]:
    """The address of an application that gives a large answer at /large."""
    routes = Routes("tests")

    @routes.add("GET", "/large", public=True)
    async def large(call: Call) -> web.Response:
        """A large answer."""
        return web.Response(body=LARGE, content_type="text/plain")

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionResetError:
            if cut is not None:
                cut.set()
            raise

    app = web.Application(middlewares=[render_errors, watch])
    install(app, routes.items, pace, budgets)
    async with TestServer(app) as server:
        yield server.host, server.port or 0


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split()[1])


async def test_large_answers_that_nobody_reads_count_for_their_caller() -> None:
    async with (
        _large_answers(Budgets(answers=100 << 20), Pace(stall_seconds=3600)) as (host, port),
        contextlib.AsyncExitStack() as stack,
    ):

        async def connection() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(host, port)
            stack.callback(writer.close)
            return reader, writer

        first, second = await connection(), await connection()

        assert await _status(*first) == 200
        assert await _status(*second) == 429
        assert await first[0].readexactly(len(LARGE)) == LARGE
        assert await _status(*first) == 200


async def test_a_large_answer_that_nobody_reads_is_ended() -> None:
    cut = asyncio.Event()
    async with _large_answers(Budgets(), Pace(stall_seconds=0.1), cut) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        assert await _status(reader, writer) == 200

        async with asyncio.timeout(60):
            await cut.wait()
        writer.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/jobs"), ("PUT", "/api/v1/storage/USER/inflated?op=CREATE")],
)
async def test_a_compressed_body_is_refused(server: ServerProcess, method: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Content-Encoding": "gzip"}
    url = f"http://127.0.0.1:{server.port}{path.replace('USER', server.user)}"
    async with aiohttp.ClientSession() as http:
        body = gzip.compress(b'{"image": "ubuntu", "command": "true"}')
        async with http.request(method, url, data=body, headers=headers) as response:
            answer = await response.json()

        del headers["Content-Encoding"]
        made = f"{server.url}/storage/{server.user}/inflated?op=GETFILESTATUS"
        async with http.get(made, headers=headers) as response_of_file:
            pass

    assert (response.status, answer["code"]) == (415, "not_plain")
    assert response_of_file.status == 404


async def test_the_rest_of_a_refused_body_is_not_inflated() -> None:
    bodies: list[aiohttp.StreamReader] = []

    async def refuse(request: web.Request) -> web.StreamResponse:
        bodies.append(request.content)
        return web.Response(status=401)

    app = web.Application()
    app.router.add_post("/", refuse)
    body = gzip.compress(bytes(8 << 20))
    async with contextlib.AsyncExitStack() as stack:
        listener = bind("127.0.0.1", 0)
        await listen(stack, app, [listener], Patience())
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        stack.callback(writer.close)
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Encoding: gzip\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        # Behind it comes another request, whose answer shows that all of the body was read.
        writer.write(body + b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.read()

    assert [content.total_bytes for content in bodies] == [len(body), 0]


async def test_a_port_of_many_digits_is_refused(server: ServerProcess, client: Client) -> None:
    job = await submit(client, "sleep 1000")
    headers = {"Authorization": f"Bearer {server.token}"}
    url = f"{server.url}/monitoring/jobs/{job.id}/port_forward/{'9' * 5000}"

    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        answer = await response.json()

    assert (response.status, answer["code"]) == (400, "invalid")
    await client.jobs.kill(job.id)
    await finished(client, job)
