"""How flows are written on the wire: times with an offset, lists as lines or as an array."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec
from aiohttp import web

from neuro.server.http.routes import Call
from neuro.server.http.streams import json_array, ndjson

# Why its routes declare no URI.
INSIDE = "Rights hang at the project, by its name or id, and only the records say which it is."

_encode = msgspec.json.Encoder().encode


def encode(value: Any) -> bytes:
    """JSON whose times end in ``+00:00``: the flow clients of old Pythons cannot read ``Z``."""
    return _encode(_plain(value))


def _plain(value: Any) -> Any:
    # Only what this platform's own messages are made of: what users keep (outputs, graphs) is
    # text in dictionaries, and is passed on as it is.
    if isinstance(value, msgspec.Struct):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


async def list_answer(call: Call, found: AsyncGenerator[Any]) -> web.StreamResponse:
    """A list: NDJSON where the client accepts it, or else an array."""
    if call.wants_ndjson:
        return await ndjson(call, _encoded(found))
    return await json_array(call, _encoded(found))


async def _encoded(found: AsyncGenerator[Any]) -> AsyncGenerator[bytes]:
    async with aclosing(found):
        async for item in found:
            yield encode(item)
