"""How every noun of the SDK calls the API: one request, and what its answer is.

``answered`` sends each of them. A server that has too much to do asks for a pause
(``Retry-After``): a short one is made here, a longer one is left to the caller, who finds it on the
error as ``retry_after`` (seconds).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from neuro.client.transport import Params, Request, Response, Transport, raise_error_line
from neuro.domain.errors import InvalidInput, NotFound, PlatformError, TooManyRequests

T = TypeVar("T")

# How long the pauses of one call may be in all. A server that is only busy asks for one second at a
# time; a limit that lasts (of jobs, of bakes) asks for more than this.
PATIENCE_SECONDS = 5.0

_JSON = {"Content-Type": "application/json"}
_LINES = {"Accept": "application/x-ndjson"}


@asynccontextmanager
async def answered(transport: Transport, request: Request) -> AsyncIterator[Response]:
    """Send a request; the context closes its answer. Raises what a Transport raises."""
    left = PATIENCE_SECONDS
    async with AsyncExitStack() as stack:
        while True:
            try:
                response = await stack.enter_async_context(transport.send(request))
                break
            except PlatformError as error:
                pause = error.retry_after
                if pause is None or pause > left or not _may_repeat(request, error):
                    raise
            left -= max(pause, 0.1)
            await transport.sleep(pause)
        yield response


def _may_repeat(request: Request, error: PlatformError) -> bool:
    # What was refused for there being too much was not begun. Of what else failed that is unknown,
    # and only reading twice is no different from reading once.
    if request.body is not None and not isinstance(request.body, bytes):
        return False
    return isinstance(error, TooManyRequests) or request.method == "GET"


async def content(transport: Transport, request: Request, kind: type[T]) -> T:
    """Send a request and decode its answer."""
    async with answered(transport, request) as response:
        return msgspec.json.decode(await response.read(), type=kind)


async def done(transport: Transport, request: Request) -> None:
    """Send a request whose answer says nothing."""
    async with answered(transport, request) as response:
        await response.read()


async def lines(
    transport: Transport,
    request: Request,
    kind: type[T],
    begun: Callable[[Response], None] | None = None,
) -> AsyncGenerator[T, None]:
    """Send a request and decode its answer line by line; raises what a line with an error says.

    ``begun`` is called with the answer before its first line.
    """
    decoder = msgspec.json.Decoder(kind)
    async with answered(transport, request) as response:
        if begun is not None:
            begun(response)
        async for line in response.lines():
            if line:
                raise_error_line(line)
                yield decoder.decode(line)


async def send(transport: Transport, method: str, path: str, message: Any, kind: type[T]) -> T:
    """Send a message as JSON and take the answer."""
    return await content(transport, with_message(method, path, message), kind)


async def tell(
    transport: Transport, method: str, path: str, message: Any = None, *, params: Params = ()
) -> None:
    """Send a message, or none, whose answer says nothing."""
    if message is None:
        await done(transport, Request(method=method, path=path, params=params))
    else:
        await done(transport, with_message(method, path, message, params=params))


async def get(transport: Transport, path: str, kind: type[T], *, params: Params = ()) -> T:
    """Take one thing. Raises NotFound."""
    return await content(transport, Request(method="GET", path=path, params=params), kind)


async def find(transport: Transport, path: str, params: Params, kind: type[T]) -> T | None:
    """One thing, or None where there is none."""
    try:
        return await get(transport, path, kind, params=params)
    except NotFound:
        return None


def each(
    transport: Transport,
    path: str,
    params: Params,
    kind: type[T],
    begun: Callable[[Response], None] | None = None,
) -> AsyncGenerator[T, None]:
    """A list as it comes, line by line; ``begun`` is that of ``lines``."""
    call = Request(method="GET", path=path, params=params, headers=_LINES)
    return lines(transport, call, kind, begun)


async def listed(transport: Transport, path: str, params: Params, kind: type[T]) -> list[T]:
    """A whole list, which comes line by line."""
    return [thing async for thing in each(transport, path, params, kind)]


def with_message(
    method: str,
    path: str,
    message: Any,
    *,
    params: Params = (),
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request that carries a message as JSON."""
    return Request(
        method=method,
        path=path,
        params=params,
        headers={**_JSON, **(headers or {})},
        body=_encoded(message),
    )


def _encoded(message: Any) -> bytes:
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:
        # Python reads what is not UTF-8 on a command line as lone surrogates, which have no bytes.
        field = next(_not_utf8(msgspec.to_builtins(message)))
        error = InvalidInput(f"'{field}' is not in UTF-8: write it in UTF-8.")
        error.field = field
        raise error from None


def _not_utf8(value: Any, where: str = "") -> Iterator[str]:
    """The texts without bytes, as the server calls them: ``tags[0]``, ``env.NAME``."""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield where
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _not_utf8(each, f"{where}[{index}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _not_utf8(key, f"a key of {where}")
            yield from _not_utf8(each, f"{where}.{key}" if where else key)


def query_of(query: msgspec.Struct) -> Params:
    """A query's fields as parameters: one for each value of a list, none for null."""
    params: list[tuple[str, str]] = []
    for name, value in msgspec.to_builtins(query).items():
        values = value if isinstance(value, list) else [value]
        params += [(name, _text(one)) for one in values if one is not None]
    return params


def below(path: str, name: str) -> str:
    """The path of one thing in a collection."""
    return f"{path}/{quote(name, safe='')}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
