"""The storage over HTTP, with this platform's bulk operations.

See docs/reference/wire-protocol.md#storage.

The operation is in the query (``?op=…``), the path of the file in the path. Own operations, which
the server names ``storage-bulk`` among its features (the streams are of ``neuro.domain.frames``):

- ``POST ?op=BULK``: files and folders in one stream, each written whole or not at all; NDJSON with
  a line per file that failed, and a summary;
- ``POST ?op=FETCH``: the files that the body names, in one stream;
- ``PUT ?op=UPLOAD&id=…&size=…&offset=…``: one file, visible only when it is whole;
- ``GET ?op=UPLOADSTATUS&id=…``: how much of such an upload has arrived, to go on from there.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import msgspec
from aiohttp import hdrs, web

from neuro.domain.errors import InvalidInput, NotFound, TooLarge
from neuro.domain.permissions import Action
from neuro.domain.storage import FileStatus, FileStatusEnvelope
from neuro.domain.texts import Verbatim
from neuro.domain.uris import ResourceURI
from neuro.server.http.bodies import json_decoder, read_json
from neuro.server.http.routes import Call, Routes, json_response
from neuro.server.http.streams import BYTES, NDJSON, json_array, ndjson
from neuro.server.storage.access import authorize, view
from neuro.server.storage.confine import Place
from neuro.server.storage.paths import parse_path, parse_quoted_path
from neuro.server.storage.receive import receive_bulk, receive_file, receive_upload
from neuro.server.storage.send import send_batches, send_file
from neuro.server.storage.service import StorageService

PREFIX = "/api/v1/storage"
PATH = PREFIX + r"{path:[\s\S]*}"  # A name may have a line's end in it.
SECTION = "storage"
INSIDE = "The operation in the query says what it needs on the path, and on its destination."

MAX_FETCH_BODY = 8 << 20
MAX_FETCH_PATHS = 50_000
_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(?:\*|\d+)")
_UPLOAD_ID = re.compile(r"[A-Za-z0-9_.-]{8,128}")


class StorageQuery(msgspec.Struct, frozen=True):
    """What a request asks for; each operation uses its own fields. Sizes are bytes."""

    op: str = ""
    recursive: bool = True
    destination: Verbatim = ""
    id: str = ""
    size: int = 0
    offset: int = 0
    executable: bool = False


class UploadStatus(msgspec.Struct, frozen=True):
    """``offset``: the bytes of an upload that have arrived and were found undamaged."""

    offset: int


class FetchBody(msgspec.Struct, frozen=True):
    """Paths of files, relative to the request's folder."""

    paths: list[Verbatim]


_decode_fetch = json_decoder(FetchBody)


Operation = Callable[["StorageAPI", Call, StorageQuery], Awaitable[web.StreamResponse]]


class StorageAPI:
    """One method per operation: decode, authorize, one call of the service, encode."""

    def __init__(self, service: StorageService) -> None:
        self._service = service

    def _uri(self, call: Call) -> ResourceURI:
        raw = call.request.rel_url.raw_path
        if not raw.startswith(PREFIX) or raw[len(PREFIX) : len(PREFIX) + 1] not in ("", "/"):
            raise NotFound(f"There is nothing at {call.request.method} {call.request.path}.")
        return self._known(call, parse_quoted_path(raw[len(PREFIX) :]))

    def _known(self, call: Call, segments: tuple[str, ...]) -> ResourceURI:
        if segments and segments[0] == call.user:
            self._service.make_home(call.user)  # Everybody's home is there from the start.
        return ResourceURI("storage", self._service.cluster, segments)

    def _place(self, call: Call, action: Action) -> Place:
        return authorize(call.identity, self._uri(call), action)

    # GET

    async def list_status(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        seen = view(call.identity, self._uri(call))
        await self._service.check_folder(seen.place)
        batches = self._service.entries(
            seen.place, seen.permission, known=seen.known, only=seen.partial
        )
        if call.wants_ndjson:
            return await ndjson(call, _lines(batches, FileStatusEnvelope))
        head, tail = b'{"FileStatuses":{"FileStatus":[', b"]}}"
        return await json_array(call, _joined(batches), head=head, tail=tail)

    async def get_file_status(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        seen = view(call.identity, self._uri(call))
        status = await self._service.status(seen.place, seen.permission)
        return json_response(FileStatusEnvelope(status))

    async def get_disk_usage(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        return json_response(await self._service.usage(view(call.identity, self._uri(call)).place))

    async def open(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        file = await self._service.open(self._place(call, Action.READ))
        try:
            return await send_file(call, self._service, file)
        finally:
            file.close()

    async def upload_status(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.WRITE)
        upload_id = _upload_id(query)
        return json_response(
            UploadStatus(await self._service.upload_offset(place, call.user, upload_id))
        )

    # PUT and PATCH

    async def create(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.WRITE)
        fd = await self._service.open_for_writing(place, create=True)
        await receive_file(call.request, self._service, fd, 0, place.path)
        return web.Response(status=201)

    async def write(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.WRITE)
        offset, length = _content_range(call.request)
        fd = await self._service.open_for_writing(place, create=False)
        await receive_file(call.request, self._service, fd, offset, place.path, length)
        return web.Response(status=200)

    async def make_folders(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        await self._service.make_folders(self._place(call, Action.WRITE))
        return web.Response(status=201)

    async def upload(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.WRITE)
        if query.size < 0 or not 0 <= query.offset <= query.size:
            raise InvalidInput(
                f"The offset is {query.offset} and the size {query.size}: both must be 0 or more,"
                " and the offset at most the size."
            )
        upload = await self._service.begin_upload(
            place,
            call.user,
            _upload_id(query),
            size=query.size,
            offset=query.offset,
            executable=query.executable,
        )
        await receive_upload(call.request, self._service, upload)
        return web.Response(status=201)

    # POST and DELETE

    async def rename(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        source = self._place(call, Action.WRITE)
        if not query.destination.startswith("/"):
            raise InvalidInput("RENAME needs destination=/OWNER/PATH.")
        uri = self._known(call, parse_path(query.destination))
        await self._service.rename(source, authorize(call.identity, uri, Action.WRITE))
        return web.Response(status=204)

    async def bulk(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        intake = await self._service.begin_bulk(self._place(call, Action.WRITE))
        lines = await receive_bulk(call.request, self._service, intake)
        return web.Response(body=b"\n".join(lines) + b"\n", content_type=NDJSON)

    async def fetch(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.READ)
        await self._service.check_folder(place)
        body = await _fetch_body(call.request)
        if len(body.paths) > MAX_FETCH_PATHS:
            raise TooLarge(
                f"A FETCH can name {MAX_FETCH_PATHS} files: ask for the rest in another."
            )
        return await send_batches(call, self._service.fetch(place, body.paths))

    async def delete(self, call: Call, query: StorageQuery) -> web.StreamResponse:
        place = self._place(call, Action.WRITE)
        batches = self._service.remove(place, recursive=query.recursive)
        if call.wants_ndjson:
            return await ndjson(call, _lines(batches, None))
        async for _ in batches:
            pass
        return web.Response(status=204)


_OPERATIONS: dict[str, dict[str, Operation]] = {
    "GET": {
        "LISTSTATUS": StorageAPI.list_status,
        "GETFILESTATUS": StorageAPI.get_file_status,
        "GETDISKUSAGE": StorageAPI.get_disk_usage,
        "OPEN": StorageAPI.open,
        "UPLOADSTATUS": StorageAPI.upload_status,
    },
    "PUT": {
        "CREATE": StorageAPI.create,
        "MKDIRS": StorageAPI.make_folders,
        "UPLOAD": StorageAPI.upload,
    },
    "PATCH": {"WRITE": StorageAPI.write},
    "POST": {
        "RENAME": StorageAPI.rename,
        "BULK": StorageAPI.bulk,
        "FETCH": StorageAPI.fetch,
    },
    "DELETE": {"DELETE": StorageAPI.delete},
}


def storage_routes(service: StorageService) -> Routes:
    """The routes of ``/api/v1/storage``: one per method, with the operations in the query."""
    routes = Routes("storage", inside=INSIDE)
    api = StorageAPI(service)

    async def serve(call: Call, query: StorageQuery) -> web.StreamResponse:
        known = _OPERATIONS[call.request.method]
        operation = known.get(query.op)
        if operation is None:
            given = f"op={query.op}" if query.op else "no op"
            raise InvalidInput(f"{given} in the query; {call.request.method} knows {list(known)}.")
        return await operation(api, call, query)

    @routes.add("GET", PATH, section=SECTION, streams=BYTES, names_files=True)
    async def look(call: Call, query: StorageQuery) -> web.StreamResponse:
        """LISTSTATUS, GETFILESTATUS, GETDISKUSAGE, OPEN (with Range), UPLOADSTATUS."""
        return await serve(call, query)

    @routes.add("PUT", PATH, status=201, section=SECTION, streams=BYTES, names_files=True)
    async def put(call: Call, query: StorageQuery) -> web.StreamResponse:
        """CREATE, MKDIRS, UPLOAD."""
        return await serve(call, query)

    @routes.add("PATCH", PATH, section=SECTION, streams=BYTES, names_files=True)
    async def write(call: Call, query: StorageQuery) -> web.StreamResponse:
        """WRITE at the place in the file that Content-Range tells."""
        return await serve(call, query)

    @routes.add("POST", PATH, section=SECTION, streams=BYTES, names_files=True)
    async def post(call: Call, query: StorageQuery) -> web.StreamResponse:
        """RENAME, BULK, FETCH."""
        return await serve(call, query)

    @routes.add("DELETE", PATH, section=SECTION, streams=NDJSON, names_files=True)
    async def delete(call: Call, query: StorageQuery) -> web.StreamResponse:
        """DELETE a file, or a folder with all below it."""
        return await serve(call, query)

    return routes


async def _lines(
    batches: AsyncIterator[Sequence[msgspec.Struct]], envelope: type[msgspec.Struct] | None
) -> AsyncIterator[bytes]:
    encode = msgspec.json.encode
    async for batch in batches:
        if batch:
            # One write for a whole batch; the stream adds the last line's end.
            yield b"\n".join(encode(envelope(item) if envelope else item) for item in batch)


async def _joined(batches: AsyncGenerator[list[FileStatus]]) -> AsyncGenerator[bytes]:
    async with aclosing(batches):
        async for batch in batches:
            if batch:
                yield b",".join(map(msgspec.json.encode, batch))


def _content_range(request: web.Request) -> tuple[int, int]:
    header = request.headers.get(hdrs.CONTENT_RANGE, "")
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if match is None or int(match[2]) < int(match[1]):
        raise InvalidInput(f"WRITE needs Content-Range: bytes FIRST-LAST/*, not '{header}'.")
    offset, last = int(match[1]), int(match[2])
    if last >= 1 << 63:
        raise InvalidInput("Content-Range is beyond what a file can hold.")
    return offset, last - offset + 1


def _upload_id(query: StorageQuery) -> str:
    if not _UPLOAD_ID.fullmatch(query.id):
        raise InvalidInput("An upload needs id=… of 8 to 128 letters, digits, '.', '_' or '-'.")
    return query.id


async def _fetch_body(request: web.Request) -> FetchBody:
    body: FetchBody = await read_json(request, _decode_fetch, MAX_FETCH_BODY)
    return body
