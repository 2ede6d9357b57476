"""Errors on the wire: whatever a route raises, in the form that the route declares.

That holds wherever the error arises: before the route is known, before its handler, and in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from neuro.domain.errors import (
    NotFound,
    PlatformError,
    StorageFault,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unavailable,
)
from neuro.engines.exhaustion import FULL
from neuro.server.access.proofs import TOKEN, challenge
from neuro.server.http.error_forms import form_at
from neuro.server.http.routes import ERROR_FORMS, route_of

log = structlog.get_logger("neuro.http")

Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def render_errors(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    """Turn whatever a route raises into the answer that clients understand.

    Where a part of another one is sent, the connection ends: its reader sees that it is not whole.
    """
    answer = await _answered(request, handler)
    if request.writer.output_size > 0 and not answer.prepared and request.transport is not None:
        request.transport.close()
    return answer


async def _answered(request: web.Request, handler: Endpoint) -> web.StreamResponse:
    try:
        return await handler(request)
    except PlatformError as error:
        return _answer(request, error)
    except web.HTTPRequestEntityTooLarge:
        return _answer(request, TooLarge("The body is too large."))
    except web.HTTPNotFound:
        return _answer(request, NotFound(f"There is nothing at {request.method} {request.path}."))
    except web.HTTPException as error:
        plain = PlatformError(error.reason)
        plain.status = error.status
        answer = _answer(request, plain)
        if isinstance(error, web.HTTPMethodNotAllowed):
            answer.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return answer
    except OSError as error:
        if isinstance(error, ConnectionResetError) and _has_left(request):
            return web.Response()  # Nobody reads it.
        if error.errno in FULL:
            return _answer(request, StorageFault("ENOSPC", "The server's disk is full."))
        return _unexpected(request, error)
    except Exception as error:
        return _unexpected(request, error)


def _answer(request: web.Request, error: PlatformError) -> web.Response:
    route = route_of(request)
    form = route.errors if route else form_at(request.path, request.app[ERROR_FORMS])
    response = web.Response(
        body=form.write(error, request.headers.get(hdrs.ACCEPT_LANGUAGE, "")),
        status=error.status,
        headers=form.headers,
        content_type=form.media_type,
    )
    if isinstance(error, TooManyRequests | Unavailable):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after or 1.0)))
    if isinstance(error, TooSlow):
        response.force_close()
    if error.status == 401:
        response.headers[hdrs.WWW_AUTHENTICATE] = (
            route.challenge(request, error)
            if route is not None and route.challenge is not None
            else challenge(route.proofs if route else (TOKEN,))
        )
    if "Upgrade" in request.headers:
        # A WebSocket client sees only the headers of a refused handshake
        # (docs/reference/wire-protocol.md#websockets).
        response.headers["X-Error"] = (
            " ".join(error.message.split()).encode("ascii", "backslashreplace").decode()
        )
    return response


def _has_left(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _unexpected(request: web.Request, error: Exception) -> web.Response:
    log.exception("request failed", method=request.method, path=request.path)
    kind = type(error).__name__
    return _answer(request, PlatformError(f"The server failed ({kind}); its log has the details."))
