"""Streams that go on for as long as somebody listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable

import aiohttp
import pytest
import uvloop
from aiohttp import web

from neuro.server.http.open_streams import Streams
from neuro.server.http.routes import Call
from neuro.server.http.streams import LOST_MILLISECONDS, live_ndjson


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reader_whose_machine_is_gone_is_noticed(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def limit_of(request: web.Request) -> AsyncGenerator[bytes]:
        assert request.transport is not None
        connection = request.transport.get_extra_info("socket")
        limit = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        yield b"%d\n" % limit

    async def answer(request: web.Request) -> web.StreamResponse:
        return await live_ndjson(Call(request, None), limit_of(request))

    async def ask() -> str:
        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with aiohttp.request("GET", f"http://127.0.0.1:{runner.addresses[0][1]}") as told:
                return await told.text()
        finally:
            await runner.cleanup()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(ask()) == f"{LOST_MILLISECONDS}\n"


async def test_a_stream_that_begins_while_the_server_stops_ends_too() -> None:
    streams = Streams()
    await streams.end_all(web.Application())

    async def stream() -> None:
        with streams.running():
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.create_task(stream()), 10)
