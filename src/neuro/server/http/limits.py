"""Back-pressure: a server with too much to do says 429 with Retry-After, and never collapses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from neuro.domain.errors import TooManyRequests
from neuro.server.http.routes import route_of

MAX_REQUESTS_IN_FLIGHT = 512
MAX_STREAMS = 4096


class Streams:
    """The streams that are open now, to end them when the server stops: they would never end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the handling of a stream, in its own task."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    async def end_all(self, _app: web.Application) -> None:
        """Clients see their connections close, and come back if they want to."""
        for task in list(self._tasks):
            task.cancel()


def backpressure(
    open_streams: Streams, requests: int = MAX_REQUESTS_IN_FLIGHT, streams: int = MAX_STREAMS
) -> Middleware:
    """A middleware that counts what is in flight; streams have a budget of their own."""
    free = {False: requests, True: streams}

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = route_of(request)
        is_stream = route is not None and route.streams is not None
        if free[is_stream] <= 0:
            raise TooManyRequests("The server has too much to do now; try again in a second.")
        free[is_stream] -= 1
        try:
            if not is_stream:
                return await handler(request)
            with open_streams.running():
                return await handler(request)
        finally:
            free[is_stream] += 1

    return limit
