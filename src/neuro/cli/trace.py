"""``--trace``: each request and answer as a line on stderr. Tokens and secrets never show."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlencode

from neuro.client.transport import Params, Request, Response, Transport, WebSocket
from neuro.domain.errors import PlatformError

T = TypeVar("T")


class TracingTransport:
    """A transport that tells what goes through another one."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.url = inner.url

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        query = "?" + urlencode(request.params) if request.params else ""
        _say(f"> {request.method} {request.path}{query}")
        for name, value in request.headers.items():
            _say(f"> {name}: {value}")
        if request.path == "/secrets" and request.body is not None:
            _say("> (the value of a secret, which is not shown)")
        elif isinstance(request.body, bytes):
            _say(f"> {request.body[:2000].decode(errors='replace')}")
        started = monotonic()
        try:
            async with self._inner.send(request) as response:
                _say(f"< {response.status} in {(monotonic() - started) * 1000:.1f} ms")
                for name, value in response.headers.items():
                    _say(f"< {name}: {value}")
                yield response
        except PlatformError as error:
            _say(f"< {type(error).__name__}: {error}")
            raise

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        _say(f"> WebSocket {path}?{urlencode(params)}")
        return self._inner.websocket(path, params=params, protocols=protocols)

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        return await self._inner.gather(calls, limit=limit)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def close(self) -> None:
        await self._inner.close()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
