"""Reading the bodies of requests: in time, within their size, and never deeper than can be read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp import http_exceptions, web

from neuro.domain.errors import InvalidInput, TooLarge, TooManyRequests, TooSlow
from neuro.server.http.texts import needs_check, text_check
from neuro.server.threads import Threads

T = TypeVar("T")

MAX_JSON_BODY = 1 << 20
MAX_DECODED_AT_ONCE = 256 << 10  # bytes; larger ones in a thread
MAX_LARGE_BODIES = 256 << 20
# A person's slowest line. A body that is slower as a whole holds a place for nothing.
LEAST_BYTES_PER_SECOND = 4096
_PUNCTUAL = 0.5  # seconds that a timer may be late on a busy machine


@dataclass(frozen=True)
class Pace:
    """How long a body may stand still, in seconds; what is read whole has a least rate too."""

    stall_seconds: float = 30.0
    bytes_per_second: int = LEAST_BYTES_PER_SECOND


class LargeBodies:
    """The memory that bodies over ``MAX_JSON_BODY`` may take, all those at once together.

    Those over ``MAX_DECODED_AT_ONCE`` are decoded in threads, one of each person at a time.
    """

    def __init__(self, limit: int = MAX_LARGE_BODIES) -> None:
        self.free = limit
        self._threads = Threads(2, 1, "bodies")

    async def decode(self, decode: Callable[[bytes | bytearray], T], raw: bytearray) -> T:
        """``decode_json``, in a thread where it would stop the server."""
        if len(raw) <= MAX_DECODED_AT_ONCE:
            return decode_json(decode, raw)
        return await self._threads.do(lambda: decode_json(decode, raw))

    async def close(self, _: object = None) -> None:
        await self._threads.close()


PACE = web.AppKey("pace", Pace)
LARGE_BODIES = web.AppKey("large_bodies", LargeBodies)


async def pieces(request: web.Request, *, least_rate: int = 0) -> AsyncGenerator[bytes]:
    """The pieces of a body as they come.

    ``least_rate`` is bytes a second over the whole, after a first stall that is for free.

    Raises TooSlow where nothing comes for the application's ``Pace``, or less than ``least_rate``;
    InvalidInput for a body that breaks off or is malformed.
    """
    watch = _Watch(request.content, request.app[PACE].stall_seconds, least_rate)
    try:
        while True:
            watch.waits()
            piece = await request.content.readany()
            watch.got(len(piece))
            if not piece:
                return
            yield piece
    except (
        aiohttp.ClientError,
        web.RequestPayloadError,
        http_exceptions.HttpProcessingError,
        ConnectionError,
    ) as error:
        raise InvalidInput(f"The body broke off: {error}.") from None
    finally:
        watch.end()


class _Watch:
    """Ends a body that does not get on, with one timer for all of it: a gigabyte has many pieces.

    Only the time that its reader waits for it counts; a slow disk is not the sender's fault.
    """

    def __init__(self, body: aiohttp.StreamReader, stall: float, least_rate: int) -> None:
        self._body = body
        self._stall = stall
        self._rate = least_rate
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._seen = 0
        now = self._loop.time()
        self._end = now + stall if least_rate else math.inf
        self._look_at(now + stall)

    def waits(self) -> None:
        """The reader waits for the next piece."""
        self._since = self._loop.time()
        self._seen = self._body.total_bytes

    def got(self, size: int) -> None:
        """A piece of ``size`` bytes has come."""
        self._since = None
        if self._rate:
            self._end += size / self._rate

    def end(self) -> None:
        self._timer.cancel()

    def _look_at(self, due: float) -> None:
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._due > _PUNCTUAL:
            # The server itself stood still, and has not looked at what came meanwhile.
            self._since = None if self._since is None else now
            self._end = max(self._end, now) + self._stall
        due = now + self._stall if self._since is None else self._since + self._stall
        due = min(due, self._end if self._since is not None else math.inf)
        if self._since is not None and self._body.total_bytes > self._seen:
            due = max(due, now + _PUNCTUAL)  # Its reader is about to take what has come.
        if now < due:
            self._look_at(due)
            return
        self._body.set_exception(
            TooSlow(
                "The body did not arrive in time: the connection is closed. Send it again over a"
                " faster connection."
            )
        )


async def read_json(
    request: web.Request, decode: Callable[[bytes | bytearray], T], max_bytes: int
) -> T:
    """A whole body, decoded.

    Raises TooLarge for one over ``max_bytes``, TooManyRequests where the server holds too many
    large ones, and what ``pieces`` and ``decode_json`` raise.
    """
    too_large = TooLarge(f"The body is over {max_bytes} bytes.")
    if (request.content_length or 0) > max_bytes:
        raise too_large
    content, small = request.content, min(max_bytes, MAX_DECODED_AT_ONCE)
    if content.is_eof() and content.exception() is None and content.total_bytes <= small:
        return decode_json(decode, await content.read())  # All of it is here, as it is mostly.
    bodies = request.app[LARGE_BODIES]
    raw = bytearray()
    taken = 0
    try:
        # Read here and not by the framework, which has one limit for all routes.
        body = pieces(request, least_rate=request.app[PACE].bytes_per_second)
        async with aclosing(body):
            async for piece in body:
                raw += piece
                if len(raw) > max_bytes:
                    raise too_large
                more = max(0, len(raw) - MAX_JSON_BODY) - taken
                if more > bodies.free:
                    raise TooManyRequests(
                        "The server is reading too many large bodies; try again later."
                    )
                bodies.free -= more
                taken += more
        return await bodies.decode(decode, raw)
    finally:
        bodies.free += taken


def decode_json(
    decode: Callable[[bytes | bytearray], T],
    raw: bytes | bytearray,
    what: str = "The body is not what this call takes",
) -> T:
    """``decode(raw)``. Raises InvalidInput for what is not JSON, of another type, or too deep."""
    try:
        return decode(raw)
    except RecursionError:
        # Also below a key that nobody knows: the decoder goes through it all the same.
        raise InvalidInput(f"{what}: it is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{what}: {error}") from None


def json_decoder(kind: Any) -> Callable[[bytes | bytearray], Any]:
    """A decoder of JSON that also looks at every text in it (``neuro.server.http.texts``).

    Raises TypeError for a type whose texts cannot be looked at.
    """
    decode = msgspec.json.Decoder(kind).decode
    check = text_check(kind)

    def decode_and_check(raw: bytes | bytearray) -> Any:
        value = decode(raw)
        if needs_check(raw):
            check(value)
        return value

    return decode_and_check
