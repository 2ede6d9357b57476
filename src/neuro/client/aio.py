"""A transport on aiohttp: for programs with an event loop, and for WebSockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from neuro.client.reasons import lost, unreachable
from neuro.client.tasks import side_by_side
from neuro.client.transport import (
    USER_AGENT,
    Params,
    Request,
    Response,
    WebSocket,
    error_of,
)

T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 << 20


class AioTransport:
    """See the module's docstring. It may be made anywhere, and used by one event loop at a time."""

    def __init__(self, url: str, token: str | None, *, timeout: float = 60.0) -> None:
        """``timeout`` is seconds for connecting and for each read."""
        self.url = url.rstrip("/")
        self._timeout = _silent(timeout)
        self._headers = {"User-Agent": USER_AGENT}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _opened(self) -> aiohttp.ClientSession:
        # Connections belong to an event loop. A notebook's cells share one, and each `asyncio.run`
        # of a program has its own.
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            await self.close()
            self._loop = loop
            self._session = aiohttp.ClientSession(
                headers=self._headers,
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=64),
                read_bufsize=1 << 20,
            )
        return self._session

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        body = request.body
        if body is not None and not isinstance(body, bytes):
            body = _pieces(body)
        session = await self._opened()
        try:
            async with session.request(
                request.method,
                self._address(request.path),
                params=list(request.params),
                headers=CIMultiDict(request.headers),
                data=body,
                timeout=self._timeout if request.timeout is None else _silent(request.timeout),
            ) as response:
                if response.status >= 400:
                    raise error_of(response.status, await response.read(), response.headers)
                yield _AioResponse(response)
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
            raise unreachable(self.url, error) from error

    def _address(self, path: str) -> URL:
        return URL(path if "://" in path else self.url + path, encoded=True)

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        return self._websocket(path, params, protocols)

    @asynccontextmanager
    async def _websocket(
        self, path: str, params: Params, protocols: Sequence[str]
    ) -> AsyncIterator[WebSocket]:
        session = await self._opened()
        try:
            socket = await session.ws_connect(
                self._address(path),
                params=list(params),
                protocols=protocols,
                heartbeat=30.0,
                max_msg_size=MAX_MESSAGE_BYTES,
            )
        except aiohttp.WSServerHandshakeError as error:
            headers: Mapping[str, str] = error.headers or {}
            raise error_of(error.status, b"", headers) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unreachable(self.url, error) from error
        try:
            yield _AioWebSocket(socket)
        finally:
            await socket.close()

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        return await side_by_side(calls, limit)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _silent(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)


async def _pieces(body: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in body:
        yield piece


class _AioResponse:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def read(self) -> bytes:
        return await self._response.read()

    async def chunks(self, size: int = 1 << 20) -> AsyncIterator[bytes]:
        while chunk := await self._response.content.read(size):
            yield chunk

    async def lines(self) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._response.content.iter_any():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line.rstrip(b"\r")
        if rest:
            yield rest


class _AioWebSocket:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.protocol = socket.protocol

    async def send(self, data: bytes) -> None:
        try:
            await self._socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError) as error:
            raise lost(error) from error

    async def receive(self) -> bytes | None:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.TEXT:
            text: str = message.data
            return text.encode()
        return None

    async def close(self) -> None:
        await self._socket.close()
