"""Back-pressure: a server with too much to do says 429 with Retry-After, and never collapses.

This is the limit on all that is in flight; ``neuro.server.http.budgets`` has each person's. A probe
is counted in neither: whoever watches a busy server must learn that it lives.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from neuro.domain.errors import TooManyRequests
from neuro.server.http.routes import route_of

MAX_REQUESTS_IN_FLIGHT = 1024
MAX_STREAMS = 4096


def backpressure(requests: int = MAX_REQUESTS_IN_FLIGHT, streams: int = MAX_STREAMS) -> Middleware:
    """A middleware that counts what is in flight; streams have a budget of their own."""
    free = {False: requests, True: streams}

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = route_of(request)
        if route is not None and route.probe:
            return await handler(request)
        is_stream = route is not None and route.streams is not None
        if free[is_stream] <= 0:
            raise TooManyRequests("The server has too much to do now; try again in a second.")
        free[is_stream] -= 1
        try:
            return await handler(request)
        finally:
            free[is_stream] += 1

    return limit
