"""One method per request of the storage's API; everything else is made of these."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import msgspec

from neuro.client.messages import answered, content, lines
from neuro.client.transport import Request, Response, from_content
from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.frames import BULK_FEATURE, BulkSummary, FaultMessage
from neuro.domain.storage import DiskUsage, FileStatus, FileStatusEnvelope, Removed
from neuro.domain.uris import ResourceURI, quoted_path

if TYPE_CHECKING:
    from neuro.client.client import Client

NDJSON = "application/x-ndjson"
BINARY = {"Content-Type": "application/octet-stream"}


class Clock:
    """How far the server's clock is ahead of ours, in seconds: surely between the two bounds."""

    def __init__(self) -> None:
        self.least = -1.0
        self.most = 1.0

    def learn(self, header: str | None, before: float, after: float) -> None:
        """Take the Date (whole seconds) of an answer to a request between two local times."""
        if not header:
            return
        try:
            server = parsedate_to_datetime(header).timestamp()
        except ValueError:
            return
        self.least = server - after
        self.most = server + 1 - before


class Calls:
    """The requests, with what the server's configuration says about where and how."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._base: str | None = None
        self._offers_bulk = False
        self.clock = Clock()

    async def learn_server(self) -> None:
        """Ask once where the cluster's storage is, and what it offers besides the reference."""
        if self._base is not None:
            return
        base = self._client.transport.url + "/storage"
        try:
            config = await self._client.config()
        except NotFound:
            self._base = base
            return
        for cluster in config.clusters:
            if cluster.name == self._client.cluster:
                base = cluster.storage_url
        self._offers_bulk = BULK_FEATURE in config.features
        self._base = base.rstrip("/")

    async def offers_bulk(self) -> bool:
        """Whether the server takes many files in one request."""
        await self.learn_server()
        return self._offers_bulk

    async def _request(
        self,
        method: str,
        op: str,
        uri: ResourceURI,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Request:
        if uri.host != self._client.cluster:
            raise InvalidInput(
                f"'{uri}' is in the cluster '{uri.host}', and you are in '{self._client.cluster}'."
            )
        path = quoted_path(uri)
        await self.learn_server()
        return Request(
            method=method,
            path=f"{self._base}{path}",
            params=[("op", op), *(params or {}).items()],
            headers=headers or {},
            body=body,
        )

    async def _send(self, request: Request) -> bytes:
        async with self.sending(request) as response:
            return await response.read()

    def sending(self, request: Request) -> AbstractAsyncContextManager[Response]:
        return answered(self._client.transport, request)

    # Looking

    async def entries(self, uri: ResourceURI) -> AsyncGenerator[FileStatus, None]:
        request = await self._request("GET", "LISTSTATUS", uri, headers={"Accept": NDJSON})
        async for envelope in lines(self._client.transport, request, FileStatusEnvelope):
            yield envelope.FileStatus

    async def status(self, uri: ResourceURI) -> FileStatus:
        request = await self._request("GET", "GETFILESTATUS", uri)
        before = time.time()
        async with self.sending(request) as response:
            self.clock.learn(response.headers.get("Date"), before, time.time())
            return msgspec.json.decode(await response.read(), type=FileStatusEnvelope).FileStatus

    async def usage(self, uri: ResourceURI) -> DiskUsage:
        request = await self._request("GET", "GETDISKUSAGE", uri)
        return await content(self._client.transport, request, DiskUsage)

    async def open(
        self, uri: ResourceURI, first: int = 0, end: int | None = None, version: str | None = None
    ) -> Request:
        headers: dict[str, str] = {}
        if first or end is not None:
            headers["Range"] = f"bytes={first}-{'' if end is None else end - 1}"
        if version:
            headers["If-Range"] = version
        return await self._request("GET", "OPEN", uri, headers=headers)

    # Changing

    async def make_folders(self, uri: ResourceURI) -> None:
        await self._send(await self._request("PUT", "MKDIRS", uri))

    async def rename(self, source: ResourceURI, target: ResourceURI) -> None:
        params = {"destination": target.path}
        await self._send(await self._request("POST", "RENAME", source, params=params))

    async def remove(self, uri: ResourceURI, recursive: bool) -> AsyncGenerator[Removed, None]:
        params = {"recursive": "true" if recursive else "false"}
        headers = {"Accept": NDJSON}
        request = await self._request("DELETE", "DELETE", uri, params=params, headers=headers)
        async for removed in lines(self._client.transport, request, Removed):
            yield removed

    async def create(self, uri: ResourceURI, data: bytes) -> None:
        await self._send(await self._request("PUT", "CREATE", uri, headers=BINARY, body=data))

    async def write(self, uri: ResourceURI, data: bytes, offset: int) -> None:
        headers = {**BINARY, "Content-Range": f"bytes {offset}-{offset + len(data) - 1}/*"}
        await self._send(await self._request("PATCH", "WRITE", uri, headers=headers, body=data))

    # This platform's own

    async def upload(
        self,
        uri: ResourceURI,
        upload_id: str,
        *,
        size: int,
        offset: int,
        executable: bool,
        body: Iterable[bytes],
        length: int,
    ) -> None:
        """``length``: of the body, in bytes, so that it is not cut into chunks on its way."""
        params = {"id": upload_id, "size": str(size), "offset": str(offset)}
        params["executable"] = "true" if executable else "false"
        headers = {**BINARY, "Content-Length": str(length)}
        request = await self._request(
            "PUT", "UPLOAD", uri, params=params, headers=headers, body=body
        )
        await self._send(request)

    async def upload_offset(self, uri: ResourceURI, upload_id: str) -> int:
        request = await self._request("GET", "UPLOADSTATUS", uri, params={"id": upload_id})
        return int(msgspec.json.decode(await self._send(request))["offset"])

    async def bulk(
        self, uri: ResourceURI, body: Iterable[bytes]
    ) -> tuple[list[FaultMessage], BulkSummary]:
        """Send a stream of frames; what failed on the other side, and the count of the rest."""
        request = await self._request("POST", "BULK", uri, headers=BINARY, body=body)
        lines = (await self._send(request)).splitlines()
        if not lines or b'"failed"' not in lines[-1]:
            raise from_content({}, "The server's answer to a bulk upload broke off.", 503)
        faults = [msgspec.json.decode(line, type=FaultMessage) for line in lines[:-1]]
        return faults, msgspec.json.decode(lines[-1], type=BulkSummary)

    async def fetch(self, uri: ResourceURI, paths: Sequence[str]) -> Request:
        body = msgspec.json.encode({"paths": paths})
        headers = {"Content-Type": "application/json"}
        return await self._request("POST", "FETCH", uri, headers=headers, body=body)
