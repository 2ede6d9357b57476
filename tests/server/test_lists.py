"""A long list is sent as it is found, and never held whole."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from neuro.domain.errors import InvalidInput
from neuro.server.http.errors import render_errors
from neuro.server.http.routes import Call, Routes, install
from neuro.server.http.streams import NDJSON_BLOCK, json_array

ITEM = b'{"id":%d,"text":"' + b"x" * 1000 + b'"}'


class Lists:
    """Lists of any length; ``over`` is set when one has been left."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def items(self, count: int | None, fails_at: int = -1) -> AsyncGenerator[bytes]:
        numbers = itertools.count() if count is None else range(count)
        try:
            for number in numbers:
                if number == fails_at:
                    raise InvalidInput("This one cannot be shown.")
                yield ITEM % number
                await asyncio.sleep(0)  # as a look into the database lets others have their turn
        finally:
            self.over.set()


@pytest.fixture
def lists() -> Lists:
    return Lists()


@pytest.fixture
async def caller(lists: Lists) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    routes = Routes("tests")

    @routes.add("GET", "/list/{count}/{fails_at}", public=True, streams="application/json")
    async def listed(call: Call) -> web.StreamResponse:
        """Show so many items."""
        count, fails_at = int(call.segment("count")), int(call.segment("fails_at"))
        found = lists.items(None if count < 0 else count, fails_at)
        return await json_array(call, found, head=b'{"items":[', tail=b"]}")

    app = web.Application(middlewares=[render_errors])
    install(app, routes.items)
    async with TestServer(app) as server, TestClient(server) as caller:
        yield caller


async def test_a_list_without_end_is_sent_from_its_beginning_and_left_with_its_reader(
    caller: TestClient[web.Request, web.Application], lists: Lists
) -> None:
    async with asyncio.timeout(10), caller.get("/list/-1/-1") as response:
        begun = await response.content.readexactly(4 * NDJSON_BLOCK)
        response.close()
        await lists.over.wait()

    assert begun.startswith(b'{"items":[{"id":0,')


@pytest.mark.parametrize("count", [0, 1, 2, 64, 65, 1000])
async def test_a_list_is_one_array_however_long_it_is(
    caller: TestClient[web.Request, web.Application], count: int
) -> None:
    async with caller.get(f"/list/{count}/-1") as response:
        items = msgspec.json.decode(await response.read())["items"]

    assert [item["id"] for item in items] == list(range(count))


async def test_an_error_at_the_beginning_is_answered_and_a_late_one_ends_the_connection(
    caller: TestClient[web.Request, web.Application],
) -> None:
    async with caller.get("/list/1000/3") as response:
        answer = await response.json()
    async with caller.get("/list/1000/900") as late:
        with pytest.raises(aiohttp.ClientPayloadError):
            await late.read()

    assert (response.status, answer["error"]) == (400, "This one cannot be shown.")
