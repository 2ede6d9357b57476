"""Work that would stop the event loop is done in threads, which one person never has alone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro.domain.jobs import ContainerRequest
from neuro.domain.uris import ResourceURI
from neuro.server.http.bodies import MAX_DECODED_AT_ONCE, PACE, Pace, json_decoder, read_json
from neuro.server.http.errors import render_errors
from neuro.server.http.routes import Call, Routes, install
from neuro.server.jobs.launch import Launcher
from neuro.server.storage.service import StorageService
from neuro.server.threads import FairExecutor, Threads, working_for
from tests.server.jobs import no_secret_values


async def test_one_persons_work_leaves_threads_to_others() -> None:
    threads = Threads(4, 2, "tests")
    go_on = threading.Event()
    with working_for("alice"):
        hers = [threads.do(go_on.wait) for _ in range(20)]

    with working_for("bob"):
        assert await threads.do(lambda: "done") == "done"

    assert not any(result.done() for result in hers)
    go_on.set()
    await threads.close()
    assert all(result.done() for result in hers)


async def test_people_have_their_turns_one_after_the_other() -> None:
    threads = Threads(1, 1, "tests")
    go_on = threading.Event()
    order: list[str] = []
    threads.do(go_on.wait)
    for person in ("alice", "alice", "alice", "bob", "carol"):
        with working_for(person):
            threads.do(lambda person=person: order.append(person))

    go_on.set()
    await threads.close()

    assert order == ["alice", "bob", "carol", "alice", "alice"]


async def test_work_of_two_people_waits_for_the_shorter_queue() -> None:
    threads = Threads(2, 1, "tests")
    go_on = threading.Event()
    done: list[str] = []
    with working_for("alice"):
        threads.do(go_on.wait)
        both = threads.do(lambda: done.append("both"))

    with working_for("bob"):
        for _ in range(2):
            threads.join(both)
        await both
        threads.join(both)

    go_on.set()
    await threads.close()
    assert done == ["both"]


async def test_short_work_has_all_threads_and_people_have_turns() -> None:
    executor = FairExecutor(1, "tests")
    go_on = threading.Event()
    order: list[str] = []
    first = executor.submit(go_on.wait)
    with working_for("alice"):
        hers = [executor.submit(order.append, f"alice {n}") for n in range(3)]
    with working_for("bob"):
        his = executor.submit(order.append, "bob")
        fault = executor.submit(int, "no number")

    hers[1].cancel()
    go_on.set()
    executor.shutdown()

    assert first.result()
    assert his.done()
    assert isinstance(fault.exception(), ValueError)
    assert order == ["alice 0", "bob", "alice 2"]


async def test_who_waits_for_a_lock_leaves_a_thread_to_others() -> None:
    executor = FairExecutor(3, "tests")
    go_on = threading.Event()
    with working_for("alice"):
        hers = [executor.submit(go_on.wait) for _ in range(10)]

    with working_for("bob"):
        his = executor.submit(lambda: "done")

    assert await asyncio.wrap_future(his) == "done"
    go_on.set()
    executor.shutdown()
    assert all(one.result() for one in hers)


async def test_a_fault_is_told_and_the_thread_goes_on() -> None:
    threads = Threads(1, 1, "tests")

    with pytest.raises(ZeroDivisionError):
        await threads.do(lambda: 1 // 0)

    assert await threads.do(lambda: 1) == 1
    await threads.close()


class Watched(StorageService):
    """The storage, which remembers in what threads it looks for volumes."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "default")
        self.threads: set[str] = set()

    def host_path(self, uri: ResourceURI, *, create: bool) -> Path:
        self.threads.add(threading.current_thread().name.split("_")[0])
        return super().host_path(uri, create=create)


async def test_volumes_are_made_beside_the_event_loop(tmp_path: Path) -> None:
    files = Watched(tmp_path)
    launcher = Launcher(
        "default",
        files,
        lambda record: asyncio.sleep(0, ""),
        str,
        "",
        image_token=lambda user, image: "",
        registry="",
        secrets=no_secret_values,
    )
    volumes = [
        {
            "src_storage_uri": f"storage://default/alice/x{number}/a",
            "dst_path": f"/m{number}",
            "read_only": False,
        }
        for number in range(3)
    ]
    container = msgspec.convert({"image": "ubuntu", "volumes": volumes}, ContainerRequest)

    notices = await launcher.check_volumes("alice", container)

    assert "did not exist" in notices[0]
    assert files.threads == {"storage"}
    await files.close()


class Texts(msgspec.Struct, frozen=True):
    texts: list[str]


class Page(msgspec.Struct, frozen=True):
    limit: int = 0


@pytest.mark.parametrize(("size", "thread"), [(100, "MainThread"), (300 << 10, "bodies")])
async def test_a_large_body_is_decoded_beside_the_event_loop(size: int, thread: str) -> None:
    api = Routes("tests")
    seen: list[str] = []
    decode_texts = json_decoder(Texts)

    def decode(raw: bytes | bytearray) -> Texts:
        seen.append(threading.current_thread().name.split("_")[0])
        result: Texts = decode_texts(raw)
        return result

    @api.add("POST", "/large", public=True)
    async def count(call: Call) -> int:
        """How many texts there are."""
        body: Texts = await read_json(call.request, decode, 1 << 20)
        return len(body.texts)

    app = web.Application(middlewares=[render_errors])
    install(app, api.items)
    async with TestServer(app) as server, TestClient(server) as caller:
        async with caller.post("/large", json={"texts": ["x" * size]}) as response:
            assert await response.json() == 1
        async with caller.post("/large", json={"texts": ["x" * size + "\1"]}) as response:
            assert response.status == 400

    assert seen == [thread, thread]
    assert MAX_DECODED_AT_ONCE < 300 << 10


async def test_a_server_that_stood_still_reads_what_came_meanwhile() -> None:
    waits = asyncio.Event()
    api = Routes("tests")

    @api.add("POST", "/late", public=True)
    async def count(call: Call) -> int:
        """How many texts there are."""
        waits.set()
        body: Texts = await read_json(call.request, json_decoder(Texts), 1 << 20)
        return len(body.texts)

    app = web.Application(middlewares=[render_errors])
    install(app, api.items, Pace(stall_seconds=1.0))
    assert app[PACE].stall_seconds == 1.0
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        body = b'{"texts": ["x"]}'
        head = f"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:5])
        await waits.wait()
        writer.write(body[5:10])
        # Nothing else can run in this event loop, as under a heavy request.
        stop = asyncio.get_running_loop().time() + 1.8
        while asyncio.get_running_loop().time() < stop:
            pass
        await asyncio.sleep(0)
        writer.write(body[10:])
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_number_that_nothing_can_hold_is_refused() -> None:
    api = Routes("tests")

    @api.add("GET", "/page", public=True)
    async def page(call: Call, query: Page) -> int:
        """A page."""
        return query.limit

    app = web.Application(middlewares=[render_errors])
    install(app, api.items)
    async with TestServer(app) as server, TestClient(server) as caller:
        statuses = [
            (await caller.get("/page", params={"limit": "9" * digits})).status
            for digits in (3, 30, 4000)
        ]

    assert statuses == [200, 400, 400]
