"""Streams of jobs whose engine another server holds: passed on to it, as they are.

The same request goes to that server with the caller's own token, so it asks again who may read, and
what either side says reaches the other one without a buffer between them. A server that dies breaks
the connection of its clients, and so does this one for it: they come back, as after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import TypeVar

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    WSMessage,
    WSMsgType,
    hdrs,
    web,
)
from multidict import CIMultiDict
from yarl import URL

from neuro.domain.errors import NotFound, Unavailable
from neuro.server.http.routes import Call
from neuro.server.http.streams import websocket
from neuro.server.jobs.engine_holders import EngineHolders
from neuro.server.jobs.offers import HeldBy
from neuro.server.jobs.record import JobRecord

T = TypeVar("T")

# Says that a request came from another server, and which one it is meant for. It goes no further.
PASSED_ON_HEADER = "X-Neuro-Passed-On"
CONNECT_SECONDS = 3.0
# As long as a log waits for its reader; see ``streams``.
CLOSE_SECONDS = 60.0
_OF_ONE_HOP = {
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class _Refused(Exception):
    """The other server accepts no WebSocket; it answered this."""

    def __init__(self, response: ClientResponse, body: bytes) -> None:
        self.answer = web.Response(
            status=response.status, headers=_without_hops(response.headers), body=body
        )


class _Moved(Exception):
    """Another server has the engine now."""


class PassingOn:
    """Passes requests on to the servers that have the engines of jobs."""

    def __init__(self, holders: EngineHolders) -> None:
        self._holders = holders
        self._session: ClientSession | None = None

    async def close(self, _app: web.Application) -> None:
        """Let go of all connections; for an application that ends."""
        if self._session is not None:
            await self._session.close()

    async def stream(
        self, call: Call, record: JobRecord, body: bytes | None = None
    ) -> web.StreamResponse | None:
        """The answer of the server that has the job's engine; None where that is this one.

        It is asked in the same way, with ``body`` in the place of the request's.

        Raises Unavailable where no server has it, or that one does not answer.
        """
        while (held := await self._holder(call, record)) is not None:
            asking = self._open().request(
                call.request.method,
                _url(call, held),
                data=body,
                headers=_headers(call, held),
                allow_redirects=False,
                raise_for_status=False,
            )
            try:
                upstream = await self._unless_moved(record, held, asking)
            except _Moved:
                continue
            except (ClientError, TimeoutError, OSError) as error:
                raise self._holders.does_not_answer(record) from error
            async with upstream:
                response = web.StreamResponse(
                    status=upstream.status, headers=_without_hops(upstream.headers)
                )
                try:
                    await self._unless_moved(record, held, _copy(call, response, upstream))
                except (_Moved, ClientError, TimeoutError):
                    _break(call)
                return response
        return None

    async def socket(
        self, call: Call, record: JobRecord, *protocols: str
    ) -> web.StreamResponse | None:
        """The same of a WebSocket, which may speak one of ``protocols``."""
        wanted = call.request.headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "")
        spoken = tuple(one.strip() for one in wanted.split(",") if one.strip() in protocols)
        while (held := await self._holder(call, record)) is not None:
            asking = self._open().ws_connect(
                _url(call, held),
                protocols=spoken,
                headers=_headers(call, held),
                max_msg_size=0,
                autoclose=False,
                heartbeat=30.0,
            )
            try:
                upstream = await self._unless_moved(record, held, asking)
            except _Moved:
                continue
            except _Refused as refused:
                return refused.answer
            except (ClientError, TimeoutError, OSError) as error:
                raise self._holders.does_not_answer(record) from error
            async with AsyncExitStack() as stack:
                stack.push_async_callback(upstream.close)
                chosen = (upstream.protocol,) if upstream.protocol else ()
                client = await websocket(call, protocols=chosen, close_timeout=CLOSE_SECONDS)
                try:
                    await self._unless_moved(record, held, _splice(call, client, upstream))
                except _Moved:
                    _break(call)
            return client
        return None

    async def _holder(self, call: Call, record: JobRecord) -> HeldBy | None:
        meant = call.request.headers.get(PASSED_ON_HEADER)
        if meant is not None and not self._holders.is_this_server(meant):
            raise NotFound(
                "This request was passed on to another server than was meant: `url` below [server]"
                f" in the server.toml of the server that has the engine '{record.engine}' leads"
                " here."
            )
        held = await self._holders.other_than_this(record)
        if held is not None and meant is not None:
            raise Unavailable(
                f"Another server is just taking over the engine '{record.engine}': try again in a"
                " moment."
            )
        return held

    async def _unless_moved(self, record: JobRecord, held: HeldBy, work: Awaitable[T]) -> T:
        """What ``work`` comes to. Raises _Moved where the engine is another server's before.

        One that stands still says nothing, and its connections stay open.
        """
        working = asyncio.ensure_future(work)
        moving = asyncio.create_task(self._holders.until_moved(record, held))
        try:
            await asyncio.wait((working, moving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _Moved
            return working.result()
        finally:
            for task in (working, moving):
                task.cancel()
            await asyncio.gather(working, moving, return_exceptions=True)

    def _open(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(limit=0),
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                timeout=ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                raise_for_status=_refuse,
            )
        return self._session


async def _refuse(response: ClientResponse) -> None:
    """Keep what a server answers instead of accepting a WebSocket."""
    if response.status != 101:
        raise _Refused(response, await response.read())


async def _copy(call: Call, response: web.StreamResponse, upstream: ClientResponse) -> None:
    is_last = upstream.headers.get(hdrs.CONNECTION, "").lower() == "close"
    if is_last:
        response.force_close()
    await response.prepare(call.request)
    async for chunk in upstream.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    if is_last:
        # The other server watches whether its reader has come to the end: so does this one.
        await asyncio.sleep(CLOSE_SECONDS)


async def _splice(
    call: Call, client: web.WebSocketResponse, upstream: ClientWebSocketResponse
) -> None:
    """Carry messages both ways until one side closes, and close the other one alike."""
    outward = asyncio.create_task(_to_client(call, client, upstream))
    inward = asyncio.create_task(_to_upstream(client, upstream))
    try:
        await asyncio.wait((outward, inward), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (outward, inward):
            task.cancel()
        results = await asyncio.gather(outward, inward, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError | ClientError):
            raise result


async def _to_client(
    call: Call, client: web.WebSocketResponse, upstream: ClientWebSocketResponse
) -> None:
    while True:
        message = await upstream.receive()
        if message.type is WSMsgType.BINARY:
            await client.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await client.send_str(message.data)
        elif message.type is WSMsgType.CLOSE:
            await client.close(code=message.data, message=_reason(message))
            await upstream.close()
            return
        else:
            _break(call)
            return


async def _to_upstream(client: web.WebSocketResponse, upstream: ClientWebSocketResponse) -> None:
    async for message in client:
        if message.type is WSMsgType.BINARY:
            await upstream.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await upstream.send_str(message.data)
    await upstream.close(code=client.close_code or 1001)


def _reason(message: WSMessage) -> bytes:
    return (message.extra or "").encode()


def _break(call: Call) -> None:
    """End the client's connection as that of a server that died would."""
    if call.request.transport is not None:
        call.request.transport.abort()


def _url(call: Call, held: HeldBy) -> URL:
    return URL(f"{URL(held.url).origin()}{call.request.rel_url}", encoded=True)


def _headers(call: Call, held: HeldBy) -> CIMultiDict[str]:
    headers = _without_hops(call.request.headers)
    headers[PASSED_ON_HEADER] = held.server
    return headers


def _without_hops(headers: Mapping[str, str]) -> CIMultiDict[str]:
    every = CIMultiDict(headers)
    for name in {name for name in every if name.lower() in _OF_ONE_HOP}:
        del every[name]
    return every
