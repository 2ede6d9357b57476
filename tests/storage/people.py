"""Who talks to the server in the tests: plain requests, and the SDK on both transports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from http.client import HTTPConnection
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from neuro.client.blocking import run
from neuro.client.storage import Storage
from tests.storage.server import StorageServer

T = TypeVar("T")


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Raw:
    """One request at a time, with nothing between the test and the wire."""

    def __init__(self, server: StorageServer, user: str | None = "alice") -> None:
        self._server = server
        self._user = user

    def __call__(
        self,
        method: str,
        path: str,
        op: str | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **params: str | int,
    ) -> Answer:
        """``path`` is quoted here; text that is quoted already is given as bytes in latin-1."""
        query = urlencode({**({"op": op} if op else {}), **params})
        connection = HTTPConnection("127.0.0.1", self._server.port, timeout=20)
        target = f"/api/v1/storage{path if '%' in path else quote(path)}?{query}"
        sent = {**({"Authorization": f"Bearer {self._user}"} if self._user else {})}
        connection.request(method, target, body=body, headers={**sent, **(headers or {})})
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        return answer

    def names(self, path: str) -> set[str]:
        """What a folder lists."""
        answer = self("GET", path, "LISTSTATUS")
        assert answer.status == 200, answer
        return {entry["path"] for entry in answer.json["FileStatuses"]["FileStatus"]}


class Person:
    """A user with the SDK. ``kind`` is "blocking" or "aiohttp"."""

    def __init__(self, server: StorageServer, user: str, kind: str = "blocking") -> None:
        self._server = server
        self._user = user
        self._kind = kind

    def do(self, use: Callable[[Storage], Awaitable[T]]) -> T:
        """Run ``use`` on a fresh client's storage."""

        async def call(storage: Storage) -> T:
            return await use(storage)

        if self._kind == "blocking":
            return run(call(self._server.client(self._user).storage))

        async def with_loop() -> T:
            client = self._server.aio_client(self._user)
            try:
                return await call(client.storage)
            finally:
                await client.transport.close()

        return asyncio.run(with_loop())

    def all(self, use: Callable[[Storage], AsyncIterable[T]]) -> list[T]:
        """All that an asynchronous iteration of the storage gives."""

        async def collect(storage: Storage) -> list[T]:
            return [item async for item in use(storage)]

        return self.do(collect)
