"""Calls to the routes of flows as a reference client makes them."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

NDJSON = "application/x-ndjson"


class Wire:
    """Calls of one caller: (status, content)."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def call(
        self, method: str, path: str, body: Any = None, *, accept: str = "*/*"
    ) -> tuple[int, Any]:
        """One call below ``/flow``; NDJSON is given as its text."""
        url = f"{self._url}/flow/{path}"
        headers = {"Accept": accept}
        async with self._session.request(method, url, json=body, headers=headers) as response:
            if response.content_type == NDJSON:
                return response.status, await response.text()
            return response.status, await response.json() if await response.read() else None

    async def lines(self, path: str) -> list[Any]:
        """A list as the flow clients ask for it."""
        status, text = await self.call("GET", path, accept=NDJSON)
        assert status == 200, text
        return [msgspec.json.decode(line) for line in text.splitlines()]
