"""Calls that send one message and take one, or a list, as the nouns of flows do."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from neuro.client.transport import Params, Request, Transport, raise_error_line
from neuro.domain.errors import NotFound

T = TypeVar("T")


async def send(transport: Transport, method: str, path: str, content: Any, kind: type[T]) -> T:
    """Send a message as JSON and take the answer."""
    async with transport.send(_with_content(method, path, content)) as response:
        return msgspec.json.decode(await response.read(), type=kind)


async def tell(
    transport: Transport, method: str, path: str, content: Any = None, *, params: Params = ()
) -> None:
    """Send a message, or none, whose answer says nothing."""
    call = Request(method=method, path=path, params=params)
    if content is not None:
        call = _with_content(method, path, content)
    async with transport.send(call) as response:
        await response.read()


async def get(transport: Transport, path: str, kind: type[T], *, params: Params = ()) -> T:
    """Take one thing. Raises NotFound."""
    call = Request(method="GET", path=path, params=params)
    async with transport.send(call) as response:
        return msgspec.json.decode(await response.read(), type=kind)


async def find(transport: Transport, path: str, params: Params, kind: type[T]) -> T | None:
    """One thing, or None where there is none."""
    try:
        return await get(transport, path, kind, params=params)
    except NotFound:
        return None


async def listed(transport: Transport, path: str, params: Params, kind: type[T]) -> list[T]:
    """A whole list, which comes line by line."""
    decoder = msgspec.json.Decoder(kind)
    headers = {"Accept": "application/x-ndjson"}
    found: list[T] = []
    call = Request(method="GET", path=path, params=params, headers=headers)
    async with transport.send(call) as response:
        async for row in response.lines():
            if row.startswith(b'{"error"'):
                raise_error_line(row)
            if row:
                found.append(decoder.decode(row))
    return found


def query_of(query: msgspec.Struct) -> Params:
    """A query's fields as parameters: one for each value of a list, none for null."""
    params: list[tuple[str, str]] = []
    for name, value in msgspec.to_builtins(query).items():
        values = value if isinstance(value, list) else [value]
        params += [(name, _text(each)) for each in values if each is not None]
    return params


def below(path: str, name: str) -> str:
    """The path of one thing in a collection."""
    return f"{path}/{quote(name, safe='')}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _with_content(method: str, path: str, content: Any) -> Request:
    return Request(
        method=method,
        path=path,
        headers={"Content-Type": "application/json"},
        body=msgspec.json.encode(content),
    )
