"""Uploads of blobs over HTTP: at once, in pieces, or as one stream.

Only the beginning asks for a token. What follows is asked for by the id of the upload, which is as
hard to guess as a token is, good for this upload alone, and gone when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from aiohttp import hdrs, web

from neuro.domain.permissions import Action
from neuro.server.access.people import person_of
from neuro.server.http.error_forms import OCI
from neuro.server.http.pouring import pour
from neuro.server.http.routes import Call, Need, Routes
from neuro.server.http.streams import BYTES
from neuro.server.registry.blob_tables import UploadRow
from neuro.server.registry.blobs import Incoming
from neuro.server.registry.errors import RegistryError, WrongOffset
from neuro.server.registry.names import (
    DEFAULT_ALGORITHM,
    Repository,
    algorithm_of,
    check_algorithm,
    parse_digest,
    parse_repository,
)
from neuro.server.registry.service import RegistryService
from neuro.server.threads import working_for

SECTION = "images"
UPLOADS = "/v2/{name:.+}/blobs/uploads"
BEGIN = UPLOADS + "{slash:/?}"
_CONTENT_RANGE = re.compile(r"(?:bytes )?(\d{1,19})-(\d{1,19})(?:/(?:\*|\d+))?")


def add_upload_routes(
    api: Routes, service: RegistryService, need: Callable[[Action], Need]
) -> list[Routes]:
    """Declare the beginning of uploads among ``api``; returns the routes of what follows."""
    going_on = Routes("registry", proofs=(), errors=OCI)

    # Clients write it with and without the slash at the end. It is no stream, which would end with
    # its token: a body here cannot be continued.
    @api.add("POST", BEGIN, status=202, needs=need(Action.WRITE), section=SECTION)
    async def begin(call: Call) -> web.Response:
        """Begin an upload, or have the blob at once: of the body, or of another repository."""
        query, repository = call.request.query, call.found
        if "mount" in query:
            digest = parse_digest(query["mount"])
            source = parse_repository(query["from"]) if query.get("from") else None
            if await service.mount(call.identity, repository, digest, source):
                return _there(repository, digest)
        algorithm = check_algorithm(query.get("digest-algorithm", DEFAULT_ALGORITHM))
        if "digest" not in query:
            upload = await service.uploads.begin(call.identity, repository, algorithm)
            return _going_on(202, upload, 0)
        digest = parse_digest(query["digest"])
        upload = await service.uploads.begin(
            call.identity, repository, algorithm_of(digest), call.request.content_length or 1
        )
        return await finish_with(call, repository, upload, digest)

    @going_on.add("GET", UPLOADS + "/{upload}", public=True, status=204, section=SECTION)
    async def look(call: Call) -> web.Response:
        """How much of an upload has arrived."""
        upload = await found(call)
        size = await service.in_thread(service.store.size_of_upload, upload.id)
        return _going_on(204, upload, size)

    @going_on.add(
        "PATCH", UPLOADS + "/{upload}", public=True, status=202, section=SECTION, streams=BYTES
    )
    async def bring(call: Call) -> web.StreamResponse:
        """The next piece of an upload, or all of it."""
        upload = await found(call)
        with working_for(person_of(upload.person)):
            incoming = await service.uploads.go_on(upload, upload.algorithm)
            try:
                await _receive(call, service, incoming)
            except WrongOffset as error:
                return _wrong_offset(call, upload, error)
            finally:
                await service.in_thread(incoming.close)
            await service.uploads.pause(upload)
            return _going_on(202, upload, incoming.size)

    @going_on.add(
        "PUT", UPLOADS + "/{upload}", public=True, status=201, section=SECTION, streams=BYTES
    )
    async def finish(call: Call) -> web.StreamResponse:
        """The end of an upload, with its last piece if there is one."""
        upload = await found(call)
        digest = parse_digest(call.request.query.get("digest", ""))
        return await finish_with(call, Repository(upload.path), upload, digest)

    @going_on.add("DELETE", UPLOADS + "/{upload}", public=True, status=204, section=SECTION)
    async def cancel(call: Call) -> web.Response:
        """Forget an upload."""
        await service.uploads.cancel(await found(call))
        return web.Response(status=204, headers=OCI.headers)

    async def found(call: Call) -> UploadRow:
        repository = parse_repository(call.segment("name"))
        return await service.uploads.find(repository, call.segment("upload"))

    async def finish_with(
        call: Call, repository: Repository, upload: UploadRow, digest: str
    ) -> web.Response:
        with working_for(person_of(upload.person)):
            incoming = await service.uploads.go_on(upload, algorithm_of(digest))
            try:
                await _receive(call, service, incoming)
                await service.uploads.finish(repository, incoming, digest)
            except WrongOffset as error:
                return _wrong_offset(call, upload, error)
            finally:
                await service.in_thread(incoming.close)
            return _there(repository, digest)

    return [going_on]


async def _receive(call: Call, service: RegistryService, incoming: Incoming) -> None:
    """Add the body to an upload. Raises RegistryError, WrongOffset; nothing is added then."""
    header = call.request.headers.get(hdrs.CONTENT_RANGE)
    if header is not None:
        match = _CONTENT_RANGE.fullmatch(header.strip())
        if match is None or int(match[2]) < int(match[1]):
            raise RegistryError(
                "RANGE_INVALID", 400, f"Content-Range is '{header[:80]}': write FIRST-LAST."
            )
        incoming.check_offset(int(match[1]))
        length = int(match[2]) - int(match[1]) + 1
        if call.request.content_length not in (None, length):
            raise RegistryError(
                "SIZE_INVALID",
                400,
                f"Content-Range says {length} bytes, and Content-Length"
                f" {call.request.content_length}.",
            )
        incoming.expect(length)
    await pour(call.request, service, incoming.write)
    await service.in_thread(incoming.check_end)


def _going_on(status: int, upload: UploadRow, size: int) -> web.Response:
    headers = {
        hdrs.LOCATION: f"/v2/{upload.path}/blobs/uploads/{upload.id}",
        "Docker-Upload-UUID": upload.id,
        # Nothing and one byte are told alike: it is how the original registry writes it.
        hdrs.RANGE: f"0-{max(0, size - 1)}",
        **OCI.headers,
    }
    return web.Response(status=status, headers=headers)


def _there(repository: Repository, digest: str) -> web.Response:
    headers = {
        hdrs.LOCATION: f"/v2/{repository.path}/blobs/{digest}",
        "Docker-Content-Digest": digest,
        **OCI.headers,
    }
    return web.Response(status=201, headers=headers)


def _wrong_offset(call: Call, upload: UploadRow, error: WrongOffset) -> web.Response:
    """The error, with where the upload goes on."""
    answer = _going_on(416, upload, error.size)
    answer.body = OCI.write(error, call.request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))
    answer.content_type = OCI.media_type
    return answer
