"""Connections that do not get on are ended: late heads, idle ones, those of malformed requests.

The framework waits for the head of a request for as long as for the next request. Here a head has a
time of its own. The connections of one address are bounded, by closing the one that has been idle
longest, so that whoever holds many never keeps others of the same address out. So are those of all
addresses together: the oldest that nobody has shown a token on makes room for the next.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from aiohttp import http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from neuro.domain.errors import InvalidInput, TooSlow
from neuro.server.log import Seldom

log = structlog.get_logger("neuro.http")

_MALFORMED = (http_exceptions.HttpProcessingError, web.RequestPayloadError, ConnectionError)


@dataclass(frozen=True)
class Patience:
    """Seconds for a head, and between two requests; how many connections there may be.

    ``connections`` are those of all addresses together, a count as ``connections_per_address`` is.
    """

    head: float = 30.0
    idle: float = 75.0
    connections_per_address: int = 1024
    connections: int = 1 << 30


@dataclass
class _Open:
    """All connections, oldest first: by their peer's address, and by whether it showed a token."""

    patience: Patience
    by_address: dict[str, dict[Connection, None]] = field(default_factory=dict)
    strangers: dict[Connection, None] = field(default_factory=dict)
    known: dict[Connection, None] = field(default_factory=dict)
    malformed: Seldom = field(default_factory=lambda: Seldom(log, "malformed requests"))
    full: Seldom = field(default_factory=lambda: Seldom(log, "connections closed for newer ones"))

    def make_room(self) -> bool:
        """Whether there is a place for one more connection: the oldest stranger's, if need be.

        A head takes milliseconds to come, so whoever has a token is known long before that.
        """
        if len(self.strangers) + len(self.known) < self.patience.connections:
            return True
        self.full.say(connections=self.patience.connections)
        one = next(iter(self.strangers), None)
        if one is None:
            one = next((each for each in self.known if each.is_idle), None)
        if one is None:
            return False
        self.forget(one)
        one.force_close()
        return True

    def forget(self, one: Connection) -> None:
        """Count a connection no more."""
        self.strangers.pop(one, None)
        self.known.pop(one, None)


class Connection(RequestHandler):
    """One connection of the server."""

    __slots__ = ("_address", "_head_timer", "_open")

    def __init__(self, manager: web.Server, opened: _Open, **options: Any) -> None:
        super().__init__(manager, **options)
        self._open = opened
        self._address = ""
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = self.peername
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        siblings = self._open.by_address.setdefault(self._address, {})
        if len(siblings) >= self._open.patience.connections_per_address:
            _close_idle(siblings)
        siblings[self] = None
        if self._open.make_room():
            self._open.strangers[self] = None
            self._expect_head()
        else:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_is_here()
        self._open.forget(self)
        siblings = self._open.by_address.get(self._address, {})
        siblings.pop(self, None)
        if not siblings:
            self._open.by_address.pop(self._address, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._head_is_here()
        elif self._head_timer is None and self._is_between_requests():
            self._expect_head()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request; a part of the head may be there."""
        return self._waiter is not None and not self._waiter.done()

    def become_known(self) -> None:
        """Somebody has shown a token on it that is valid."""
        if self in self._open.strangers:
            del self._open.strangers[self]
            self._open.known[self] = None

    def _is_between_requests(self) -> bool:
        # The next head may begin before this connection is back from its last answer.
        if self._messages or self._upgraded:
            return False
        request = self._current_request
        return request is None or request.content.is_eof()

    @property
    def requests(self) -> int:
        """How many requests have come."""
        return self._request_count

    def _expect_head(self) -> None:
        self._head_timer = self._loop.call_later(self._open.patience.head, self._head_is_late)

    def _head_is_here(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.is_idle:
            self._expect_head()  # What came before it is not answered yet.
            return
        if self.transport is not None:
            error = TooSlow("The head of the request did not arrive in time.")
            self.transport.write(_last_answer("408 Request Timeout", _failure(error)))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read. What it holds is not logged: it may be a token."""
        if status != 400 or not isinstance(exc, _MALFORMED):
            return super().handle_error(request, status, exc, message)
        self._note(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent")
        error = InvalidInput(f"The request is malformed: {type(exc).__name__}.")
        response = web.Response(status=400, body=_failure(error), content_type="application/json")
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        if isinstance(error, _MALFORMED):
            self._note(error)
        elif not isinstance(error, TooSlow):  # which is answered already
            super().log_exception(*args, **kw)

    def _note(self, error: BaseException) -> None:
        self._open.malformed.say(peer=self._address, kind=type(error).__name__)


def caller_is_known(request: web.BaseRequest) -> None:
    """Keep the connection of a request whose token is valid, when strangers' have to go."""
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.become_known()


def _close_idle(siblings: dict[Connection, None]) -> None:
    idle = [connection for connection in siblings if connection.is_idle]
    if idle:
        # First one that has asked for nothing yet; ``min`` gives the oldest of these.
        min(idle, key=lambda connection: connection.requests > 0).force_close()


def _failure(error: InvalidInput | TooSlow) -> bytes:
    return msgspec.json.encode({"error": error.message, "code": error.code})


def _last_answer(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class _Server(web.Server):
    def __init__(self, plain: web.Server, patience: Patience) -> None:
        super().__init__(
            plain.request_handler,
            request_factory=plain.request_factory,
            handler_cancellation=plain.handler_cancellation,
            loop=plain._loop,
            **plain._kwargs,
        )
        self._opened = _Open(patience)

    def __call__(self) -> RequestHandler:
        return Connection(self, self._opened, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application whose connections have the deadlines of ``patience``."""

    __slots__ = ("_patience",)

    def __init__(self, app: web.Application, patience: Patience, **options: Any) -> None:
        super().__init__(app, keepalive_timeout=patience.idle, **options)
        self._patience = patience

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._patience)
