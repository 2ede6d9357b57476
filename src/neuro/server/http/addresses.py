"""Which address a client reached the server at, so that an answer can name others of it."""

from __future__ import annotations

from aiohttp import web


def base_url(request: web.Request) -> str:
    """The address that the client itself used, so that it works through any proxy or tunnel."""
    host = request.headers.get("X-Forwarded-Host", request.host)
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return f"{scheme}://{host}"
