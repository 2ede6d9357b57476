"""Where a client thinks that the server is."""

from __future__ import annotations

from aiohttp import web


def base_url(request: web.Request) -> str:
    """The address that the client itself used.

    So what is told of other addresses works through any proxy or tunnel.
    """
    host = request.headers.get("X-Forwarded-Host", request.host)
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{scheme}://{host}"
