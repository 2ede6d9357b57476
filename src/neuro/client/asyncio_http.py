"""A transport on asyncio's own streams, for an event loop that needs no WebSockets.

Importing it costs next to nothing where aiohttp costs 200 ms: an executor of a bake, whose first
job waits for its imports, starts that much sooner. It sends bodies that are whole, and takes
HTTP/1.1 answers of each form (RFC 9112, 6.3): of a length, in chunks, and until the end.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from functools import cached_property
from typing import Any, SupportsIndex, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

from neuro.client.reasons import lost, unreachable
from neuro.client.tasks import side_by_side
from neuro.client.transport import (
    USER_AGENT,
    Params,
    Request,
    Response,
    ServerUnreachable,
    WebSocket,
    error_of,
    may_be_sent_twice,
)

T = TypeVar("T")

# As many connections as aiohttp's transport makes, and as much of an answer ahead of its reader.
CONNECTIONS = 64
_BLOCK = 1 << 20
# When the next of a name's addresses is tried as well (RFC 8305).
_NEXT_ADDRESS_SECONDS = 0.25


class AsyncioTransport:
    """See the module's docstring. It is made anywhere, and used by one event loop."""

    def __init__(self, url: str, token: str | None, *, timeout: float = 60.0) -> None:
        """``timeout`` is seconds for connecting and for each read."""
        self.url = url.rstrip("/")
        self._timeout = timeout
        self._headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._idle: dict[tuple[str, str], list[_Connection]] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        url = urlsplit(request.path if "://" in request.path else self.url + request.path)
        message = _message(request, url, self._headers)
        timeout = self._timeout if request.timeout is None else request.timeout
        async with self._slots:
            connection, answer = await self._exchange(url, request, message, timeout)
            try:
                if answer.status >= 400:
                    raise error_of(answer.status, await answer.read(), answer.headers)
                yield answer
            finally:
                if answer.is_over and connection.is_fit:
                    self._idle.setdefault((url.scheme, url.netloc), []).append(connection)
                else:
                    connection.close()

    async def _exchange(
        self, url: SplitResult, request: Request, message: bytes, timeout: float
    ) -> tuple[_Connection, _Answer]:
        method = request.method
        idle = self._idle.get((url.scheme, url.netloc), [])
        while idle:
            connection = idle.pop()
            if not connection.is_fit:
                connection.close()
                continue
            try:
                return connection, await connection.exchange(method, message, timeout)
            except ServerUnreachable as error:
                if isinstance(error.__cause__, TimeoutError) or not may_be_sent_twice(request):
                    raise
                # The server closed an idle connection, perhaps after it had read this.
        connection = await self._connect(url, timeout)
        return connection, await connection.exchange(method, message, timeout)

    async def _connect(self, url: SplitResult, timeout: float) -> _Connection:
        loop = asyncio.get_running_loop()
        reader = _Reader(limit=_BLOCK, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        is_tls = url.scheme == "https"
        call = loop.create_connection(
            lambda: protocol,
            url.hostname or "",
            url.port or (443 if is_tls else 80),
            ssl=self._tls if is_tls else None,
            happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS,
        )
        transport, _ = await _begun(call, timeout, url.netloc)
        return _Connection(reader, transport, url.netloc)

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        raise RuntimeError("WebSockets need the aiohttp transport")

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        return await side_by_side(calls, limit)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        await asyncio.sleep(0)  # The event loop closes their sockets in its next turn.


def _message(request: Request, url: SplitResult, headers: Mapping[str, str]) -> bytes:
    """A request as it is sent. Raises ValueError for what would be more than one line of it."""
    if request.body is not None and not isinstance(request.body, bytes):
        raise RuntimeError("bodies in pieces need another transport")
    target = url.path + ("?" + urlencode(request.params) if request.params else "")
    body: bytes = request.body or b""
    fields = {"Host": url.netloc, **headers, **request.headers}
    if body or request.method in ("POST", "PUT", "PATCH"):
        fields["Content-Length"] = str(len(body))
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header has a line break in it")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _begun(call: Awaitable[T], timeout: float, place: str) -> T:
    """What a call gives. Raises ServerUnreachable for one that fails or takes too long."""
    try:
        async with asyncio.timeout(timeout):
            return await call
    except (OSError, EOFError, asyncio.LimitOverrunError) as error:
        raise unreachable(place, error) from error


class _Reader(asyncio.StreamReader):
    """Counts the bytes that came and were not read yet."""

    ahead = 0

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        self.ahead += len(data)
        super().feed_data(data)

    async def read(self, n: int = -1) -> bytes:
        data = await super().read(n)
        self.ahead -= len(data)
        return data

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        data = await super().readuntil(separator)
        self.ahead -= len(data)
        return data


class _Connection:
    """Takes one request after the other, each when the answer before is over."""

    def __init__(self, reader: _Reader, transport: asyncio.Transport, place: str) -> None:
        self._reader = reader
        self._transport = transport
        self._place = place

    @property
    def is_fit(self) -> bool:
        """Whether another request may be sent here.

        Not behind one that was refused before the server had all of it, nor where something came,
        or the end, that nobody has asked for.
        """
        reader, transport = self._reader, self._transport
        is_quiet = not reader.ahead and not transport.get_write_buffer_size()
        return is_quiet and not reader.at_eof() and not transport.is_closing()

    async def exchange(self, method: str, message: bytes, timeout: float) -> _Answer:
        """Send a request and read the head of its answer. Raises ServerUnreachable, closed then."""
        try:
            # Nobody waits until it is sent: the answer may come before that.
            self._transport.write(message)
            while True:
                call = self._reader.readuntil(b"\r\n\r\n")
                head = await _begun(call, timeout, self._place)
                answer = _Answer(self._reader, method, head, timeout, self._place)
                if answer.status >= 200:
                    return answer
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._transport.abort()


class _Headers(Mapping[str, str]):
    """The fields of a head, in whichever case. Raises ValueError for what is none."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._values: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header without a colon")
            self._values.setdefault(name.lower(), value.strip())

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Answer:
    """An answer from its head on. Raises ServerUnreachable for none, or one that breaks off."""

    def __init__(
        self, reader: _Reader, method: str, head: bytes, timeout: float, place: str
    ) -> None:
        self._reader = reader
        self._timeout = timeout
        try:
            first, *fields = head[:-4].decode("latin-1").split("\r\n")
            version, status, *_ = first.split(" ", 2)
            self.status = int(status)
            self.headers: Mapping[str, str] = _Headers(fields)
            self._length = int(self.headers.get("Content-Length", -1))
        except ValueError as error:
            raise unreachable(place, error) from error
        self._is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        self._is_last = (
            version != "HTTP/1.1" or "close" in self.headers.get("Connection", "").lower()
        )
        self._is_read = method == "HEAD" or self.status in (204, 304)

    @property
    def is_over(self) -> bool:
        """Whether it was read to its end, and another one may follow it."""
        return self._is_read and not self._is_last

    async def read(self) -> bytes:
        return b"".join([block async for block in self.chunks()])

    async def chunks(self, size: int = _BLOCK) -> AsyncGenerator[bytes]:
        if self._is_read:
            return
        if self._is_chunked:
            while length := await self._chunk_length():
                async for block in self._blocks(length, size):
                    yield block
                await self._line()
            while await self._line():
                pass  # A field of the trailer.
        elif self._length >= 0:
            async for block in self._blocks(self._length, size):
                yield block
        else:
            self._is_last = True
            while block := await self._in_time(self._reader.read(size)):
                yield block
        self._is_read = True

    async def lines(self) -> AsyncGenerator[bytes]:
        rest = b""
        async with aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield line.rstrip(b"\r")
        if rest:
            yield rest

    async def _blocks(self, length: int, size: int) -> AsyncGenerator[bytes]:
        while length:
            block = await self._in_time(self._reader.read(min(length, size)))
            if not block:
                raise lost(EOFError())
            length -= len(block)
            yield block

    async def _chunk_length(self) -> int:
        line = await self._line()
        try:
            return int(line.partition(b";")[0], 16)
        except ValueError as error:
            raise lost(error) from error

    async def _line(self) -> bytes:
        return (await self._in_time(self._reader.readuntil(b"\r\n")))[:-2]

    async def _in_time(self, call: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self._timeout):
                return await call
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise lost(error) from error
