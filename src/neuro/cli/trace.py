"""``--trace``: each request and answer as a line on stderr. Tokens and secrets never show.

Before each are the seconds since the command began, its start and its imports among them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from neuro.client.transport import Params, Request, Response, Transport, WebSocket
from neuro.domain.errors import PlatformError

T = TypeVar("T")

# Where the time of this process's start is among the words behind the name in /proc/PID/stat.
_START_TICKS = 19


class TracingTransport:
    """A transport that tells what goes through another one."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.url = inner.url
        self._began = time.monotonic() - _age()

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        query = "?" + urlencode(request.params) if request.params else ""
        self._say(f"> {request.method} {request.path}{query}")
        for name, value in request.headers.items():
            _say(f"> {name}: {value}")
        if request.path == "/secrets" and request.body is not None:
            _say("> (the value of a secret, which is not shown)")
        elif isinstance(request.body, bytes):
            _say(f"> {request.body[:2000].decode(errors='replace')}")
        started = time.monotonic()
        try:
            async with self._inner.send(request) as response:
                took = (time.monotonic() - started) * 1000
                self._say(f"< {response.status} in {took:.1f} ms")
                for name, value in response.headers.items():
                    _say(f"< {name}: {value}")
                yield response
        except PlatformError as error:
            self._say(f"< {type(error).__name__}: {error}")
            raise

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        self._say(f"> WebSocket {path}?{urlencode(params)}")
        return self._inner.websocket(path, params=params, protocols=protocols)

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        return await self._inner.gather(calls, limit=limit)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def close(self) -> None:
        await self._inner.close()

    def _say(self, line: str) -> None:
        _say(f"{time.monotonic() - self._began:.3f} {line}")


def _age() -> float:
    """Seconds since this process began, to the hundredth; 0 where nothing says so."""
    try:
        told = Path("/proc/self/stat").read_bytes()
    except OSError:
        return 0.0
    ticks = int(told.rpartition(b")")[2].split()[_START_TICKS])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
