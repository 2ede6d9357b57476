"""``X-Service-Version``: which answers say what answered (informational, for people who debug)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

HEADER = "X-Service-Version"
_FLOWS = "/api/v1/flow/"
PING = "/api/v1/ping"
SECURED_PING = "/api/v1/secured-ping"


def says_version(path: str) -> bool:
    """Whether answers at a path have the header."""
    return path.startswith(_FLOWS) or path in (PING, SECURED_PING)


def version_signal(version: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For ``on_response_prepare``: so that streams and errors have it as well."""
    service = f"neuro/{version}"

    async def add_version(request: web.Request, response: web.StreamResponse) -> None:
        if says_version(request.path):
            response.headers[HEADER] = service

    return add_version
