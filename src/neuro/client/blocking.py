"""A transport on the standard library's HTTP client. Its coroutines never suspend."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from threading import local
from typing import Any, TypeVar, cast
from urllib.parse import urlencode, urlsplit

from neuro.client.reasons import lost, unreachable
from neuro.client.transport import (
    USER_AGENT,
    Params,
    Request,
    Response,
    WebSocket,
    error_of,
    may_be_sent_twice,
)

T = TypeVar("T")

# One write per megabyte keeps a copy near the loopback's speed.
_BLOCK = 1 << 20


def run(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that only uses a BlockingTransport, without an event loop."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    call.close()
    raise RuntimeError("this call needs an event loop")


def iterate(things: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an async generator over a BlockingTransport gives, without an event loop.

    The connection is closed when the iterator is at its end or is dropped.
    """
    try:
        while True:
            try:
                thing = run(anext(things))
            except StopAsyncIteration:
                return
            yield thing
    finally:
        run(things.aclose())


class BlockingTransport:
    """See the module's docstring. Threads may share it: each gets its own connection."""

    def __init__(self, url: str, token: str | None, *, timeout: float = 60.0) -> None:
        """``timeout`` is seconds for connecting and for each read."""
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._threads = local()

    def send(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return self._send(request)

    @asynccontextmanager
    async def _send(self, request: Request) -> AsyncIterator[Response]:
        response = self._exchange(request)
        done = False
        try:
            if response.status >= 400:
                raise error_of(response.status, response.read(), _headers(response))
            yield _BlockingResponse(response)
            done = response.isclosed()
        finally:
            if not done and not response.isclosed():
                # The rest of the body is unread: the connection cannot be used again.
                response.close()
                self._forget()

    def _exchange(self, request: Request) -> HTTPResponse:
        url = request.path if "://" in request.path else self.url + request.path
        parts = urlsplit(url)
        target = parts.path + ("?" + urlencode(request.params) if request.params else "")
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", **request.headers}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        replayable = request.body is None or isinstance(request.body, bytes)
        connection, fresh = self._connection(parts.scheme, parts.netloc)
        connection.timeout = self._timeout if request.timeout is None else request.timeout
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        try:
            connection.request(request.method, target, body=request.body, headers=headers)
            return connection.getresponse()
        except (OSError, HTTPException) as error:
            if not replayable and isinstance(error, BrokenPipeError | ConnectionResetError):
                answer = _early_answer(connection)
                if answer is not None:
                    self._threads.__dict__.pop("connections", None)  # Good for nothing else.
                    return answer
            self._forget()
            if not fresh and may_be_sent_twice(request) and not isinstance(error, TimeoutError):
                # The server closed an idle connection, perhaps after it had read this.
                return self._exchange(request)
            raise unreachable(parts.netloc, error) from error
        except BaseException:
            self._forget()  # A body that failed, or Ctrl-C: the request is cut in the middle.
            raise

    def _connection(self, scheme: str, netloc: str) -> tuple[HTTPConnection, bool]:
        kept: dict[str, HTTPConnection] = self._threads.__dict__.setdefault("connections", {})
        key = f"{scheme}://{netloc}"
        if key in kept:
            if _is_quiet(kept[key]):
                return kept[key], False
            kept.pop(key).close()
        if scheme == "https":
            from http.client import HTTPSConnection

            connection: HTTPConnection = HTTPSConnection(
                netloc, timeout=self._timeout, blocksize=_BLOCK
            )
        else:
            connection = HTTPConnection(netloc, timeout=self._timeout, blocksize=_BLOCK)
        try:
            connection.connect()
        except OSError as error:
            raise unreachable(netloc, error) from error
        assert connection.sock is not None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kept[key] = connection
        return connection, True

    def _forget(self) -> None:
        for connection in self._threads.__dict__.pop("connections", {}).values():
            connection.close()

    def websocket(
        self, path: str, *, params: Params = (), protocols: Sequence[str] = ()
    ) -> AbstractAsyncContextManager[WebSocket]:
        raise RuntimeError("WebSockets need the aiohttp transport")

    async def gather(self, calls: Iterable[Coroutine[Any, Any, T]], *, limit: int) -> list[T]:
        calls = [*calls]
        if len(calls) < 2:
            return [run(call) for call in calls]  # Importing threads takes longer than a call.
        from concurrent.futures import ThreadPoolExecutor

        threads = ThreadPoolExecutor(limit, thread_name_prefix="transfer")
        try:
            results = list(threads.map(run, calls))
        except BaseException:
            # After Ctrl-C or an error nothing new begins, and nobody waits for the others here.
            threads.shutdown(wait=False, cancel_futures=True)
            raise
        threads.shutdown()
        return results

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop here.

    async def close(self) -> None:
        self._forget()


def _is_quiet(connection: HTTPConnection) -> bool:
    """Whether nothing came that nobody has asked for, nor the connection's end."""
    if connection.sock is None:
        return False
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return not poll.poll(0)


def _early_answer(connection: HTTPConnection) -> HTTPResponse | None:
    # A server may refuse an upload before it ends: its answer waits behind the broken pipe.
    try:
        response = connection.response_class(connection.sock, method="POST")
        response.begin()
        return response
    except (OSError, HTTPException, AttributeError):
        return None


def _headers(response: HTTPResponse) -> Mapping[str, str]:
    # Its class behaves as a mapping that ignores case, and does not say so.
    return cast("Mapping[str, str]", response.headers)


class _BlockingResponse:
    def __init__(self, response: HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = _headers(response)

    async def read(self) -> bytes:
        return self._guard(self._response.read)

    async def chunks(self, size: int = 1 << 20) -> AsyncIterator[bytes]:
        while chunk := self._guard(self._response.read1, size):
            yield chunk

    async def lines(self) -> AsyncIterator[bytes]:
        while line := self._guard(self._response.readline):
            yield line.rstrip(b"\r\n")

    def _guard(self, read: Any, *arguments: Any) -> bytes:
        try:
            data: bytes = read(*arguments)
        except (OSError, HTTPException) as error:
            raise lost(error) from error
        return data
