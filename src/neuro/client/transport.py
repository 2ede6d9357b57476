"""How requests reach a server: one protocol, three ways.

``neuro.client.aio`` (aiohttp) is for programs and for everything with WebSockets.
``neuro.client.asyncio_http`` is for an event loop without WebSockets, such as an executor's: it
starts 150 ms sooner than aiohttp.
``neuro.client.blocking`` (the standard library) is for the command line's one-shot calls: its
coroutines never suspend, so they run without an event loop, and start as soon.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol, TypeVar

import msgspec

from neuro.domain import errors

T = TypeVar("T")

Params = Sequence[tuple[str, str]]
Body = bytes | Iterable[bytes] | None

USER_AGENT = "neuro"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. ``path`` is below the API's address, or a full URL.

    ``body``: bytes, or an iterable of bytes that is sent in chunks. ``timeout``: how many seconds a
    read may wait, where that is not what the transport was made with.
    """

    method: str
    path: str
    params: Params = ()
    headers: Mapping[str, str] = {}
    body: Any = None
    timeout: float | None = None


_IDEMPOTENT = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")


def may_be_sent_twice(request: Request) -> bool:
    """Whether a server that reads it twice does no more than one that reads it once.

    It may be so of a request that was sent just as the server closed the connection: nobody can
    tell whether it was read.
    """
    if request.body is not None and not isinstance(request.body, bytes):
        return False  # Its pieces are gone.
    return request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers


class Response(Protocol):
    """An answer whose status was checked (below 400), with its body still to come."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes: ...

    def chunks(self, size: int = 1 << 20) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces up to ``size`` bytes."""
        ...

    def lines(self) -> AsyncIterator[bytes]:
        """The body's lines (NDJSON), without their ends."""
        ...


class WebSocket(Protocol):
    """A connected WebSocket that carries binary messages.

    ``protocol`` is the one of those offered that the server has chosen, None for none.
    """

    protocol: str | None

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """The next message (text messages as UTF-8), or None at the end."""
        ...

    async def close(self) -> None: ...


class Transport(Protocol):
    """See the module's docstring. Every method raises PlatformError classes and ServerUnreachable.

    ``url`` is the API's address without a trailing slash (``http://127.0.0.1:8085/api/v1``).
    """

    url: str

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        """Send a request; the context closes the answer."""
        ...

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]: ...

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        """Run calls side by side, ``limit`` at a time: as tasks, or in threads without a loop."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait before another try."""
        ...

    async def close(self) -> None: ...


class ServerUnreachable(errors.Unavailable):
    """No connection: the server is down, the address is wrong, or the network is."""

    code = "unreachable"


_BY_CODE: dict[str, type[errors.PlatformError]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PlatformError)
}
_BY_STATUS: dict[int, type[errors.PlatformError]] = {
    400: errors.InvalidInput,
    401: errors.NotAuthenticated,
    403: errors.NotPermitted,
    404: errors.NotFound,
    408: errors.TooSlow,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.NotPlain,
    429: errors.TooManyRequests,
    501: errors.NotSupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
}


def error_of(status: int, body: bytes, headers: Mapping[str, str]) -> errors.PlatformError:
    """The exception that an answer of 400 or above stands for."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        text = headers.get("X-Error") or body.decode("utf-8", "replace")[:1000]
        content = {"error": text or f"The server answered {status}."}
    match content:
        case {"errors": [{"message": str(said)}, *_]}:  # as registries write it
            content = {"error": said}
    message = str(content.get("error") or f"The server answered {status}.")
    error = from_content(content, message, status)
    error.status = status
    error.retry_after = _seconds(headers.get("Retry-After"))
    return error


def from_content(content: Mapping[str, Any], message: str, status: int) -> errors.PlatformError:
    """The exception behind an error object, of an answer or of an NDJSON line."""
    kind = _BY_CODE.get(str(content.get("code"))) or _BY_STATUS.get(status, errors.PlatformError)
    error: errors.PlatformError
    if "errno" in content or kind is errors.StorageFault:
        error = errors.StorageFault(str(content.get("errno", "EIO")), message)
    else:
        error = kind(message)
    error.from_server = True
    if isinstance(error, errors.InvalidInput) and isinstance(content.get("field"), str):
        error.field = content["field"]
    return error


def _seconds(header: str | None) -> float | None:
    """What a ``Retry-After`` says: seconds, or a date (RFC 9110, 10.2.3); None for neither."""
    if not header:
        return None
    with suppress(ValueError):
        return max(0.0, float(int(header)))
    from email.utils import parsedate_to_datetime
    from time import time

    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(header).timestamp() - time())
    return None


def raise_error_line(line: bytes) -> None:
    """Raise what an NDJSON line with "error" stands for; nothing for any other line."""
    if b'"error"' not in line:
        return
    content = msgspec.json.decode(line)
    if isinstance(content, dict) and "error" in content:
        raise from_content(content, str(content["error"]), 400)
