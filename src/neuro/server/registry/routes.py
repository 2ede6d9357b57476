"""The registry over HTTP: the OCI distribution specification 1.1, with what its next one adds.

See docs/reference/wire-protocol.md#images.
"""

from __future__ import annotations

import os
from urllib.parse import urlencode

import msgspec
from aiohttp import hdrs, web

from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.access.proofs import BASIC, TOKEN
from neuro.server.access.scopes import OutOfScope, ScopedIdentity
from neuro.server.http.bodies import read_json
from neuro.server.http.error_forms import OCI
from neuro.server.http.file_answers import content_range, requested_range, send_part
from neuro.server.http.routes import FOR_ALL_USERS, Call, Need, Routes, json_response
from neuro.server.http.streams import BYTES
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.fetches import Fetch
from neuro.server.registry.manifest_tables import KeptManifest
from neuro.server.registry.manifests import MAX_MANIFEST, OCI_INDEX, Descriptor
from neuro.server.registry.mirrors import Mirrors
from neuro.server.registry.names import (
    Repository,
    is_digest,
    parse_digest,
    parse_repository,
    parse_tag,
)
from neuro.server.registry.service import PAGE, RegistryService
from neuro.server.registry.token_routes import ask_for_token
from neuro.server.registry.upload_routes import add_upload_routes

V2 = "/v2"
NAME = V2 + "/{name:.+}"
SECTION = "images"
DIGEST = "Docker-Content-Digest"


class PageOf(msgspec.Struct, frozen=True):
    """A page of a list: at most ``n``, of what comes behind ``last``."""

    n: int = PAGE
    last: str = ""


class ManifestQuery(msgspec.Struct, frozen=True):
    """With ``look`` it is nobody's pull."""

    look: bool = False


class PushQuery(msgspec.Struct, frozen=True):
    """With ``whole`` a manifest is kept only where the repository has all blobs that it names."""

    whole: bool = False


class ReferrersQuery(msgspec.Struct, frozen=True):
    """``artifactType`` is the only one that is listed, if it is given."""

    artifactType: str | None = None  # as the specification has it
    last: str = ""


class Catalog(msgspec.Struct, frozen=True):
    """Names of repositories, as OWNER/NAME."""

    repositories: list[str]


class TagList(msgspec.Struct, frozen=True):
    """The tags of a repository."""

    name: str
    tags: list[str]


class ReferrersIndex(msgspec.Struct, frozen=True, rename="camel"):
    """What is about a digest, as an image index."""

    manifests: list[Descriptor]
    schema_version: int = 2
    media_type: str = OCI_INDEX


def registry_routes(service: RegistryService, mirrors: Mirrors) -> list[Routes]:
    """The routes below ``/v2/``: those that ask for a token, and those of uploads that go on."""
    api = Routes("registry", proofs=(BASIC, TOKEN), errors=OCI, challenge=ask_for_token)

    def need(action: Action) -> Need:
        async def ask(call: Call) -> Repository:
            repository = parse_repository(call.segment("name"))
            service.authorize(call.identity, repository, action)
            return repository

        return Need("image://{cluster}/{name}", action, ask)

    @api.add("GET", V2 + "/", inside=FOR_ALL_USERS, section=SECTION)
    async def base(call: Call) -> web.Response:
        """Whether this is a registry, and knows the caller's token."""
        return web.json_response({}, headers=OCI.headers)

    @api.add("GET", V2 + "/_catalog", inside="It lists what the caller may read.", section=SECTION)
    async def catalog(call: Call, query: PageOf) -> web.Response:
        """The repositories that the caller may read, by name."""
        limit = _limit(query)
        found = await service.catalog(_lister(call.identity), query.last, limit + 1)
        return _page(call, Catalog(found[:limit]), found, limit)

    @api.add("GET", NAME + "/tags/list", needs=need(Action.READ), section=SECTION)
    async def list_tags(call: Call, query: PageOf) -> web.Response:
        """The tags of a repository, by name."""
        limit = _limit(query)
        found = await service.tags(call.found, query.last, limit + 1)
        return _page(call, TagList(call.found.path, found[:limit]), found, limit)

    @api.add("GET", NAME + "/referrers/{digest}", needs=need(Action.READ), section=SECTION)
    async def referrers(call: Call, query: ReferrersQuery) -> web.Response:
        """The manifests whose subject is a digest, as an index."""
        digest = parse_digest(call.segment("digest"))
        found, is_more = await service.referrers(call.found, digest, query.artifactType, query.last)
        answer = json_response(ReferrersIndex(found))
        answer.content_type = OCI_INDEX
        if query.artifactType is not None:
            answer.headers["OCI-Filters-Applied"] = "artifactType"
        if is_more:
            _link(call, answer, last=found[-1].digest)
        return answer

    @api.add("HEAD", NAME + "/manifests/{reference}", needs=need(Action.READ), section=SECTION)
    async def look_at_manifest(call: Call) -> web.Response:
        """Whether there is a manifest, and its digest."""
        reference = _reference(call)
        await mirrors.bring_manifest(call.found, reference)
        return answered(await service.look_at_manifest(call.found, reference))

    @api.add("GET", NAME + "/manifests/{reference}", needs=need(Action.READ), section=SECTION)
    async def get_manifest(call: Call, query: ManifestQuery) -> web.Response:
        """A manifest by a tag or a digest."""
        reference = _reference(call)
        await mirrors.bring_manifest(call.found, reference)
        ask = service.look_at_manifest if query.look else service.manifest
        return answered(await ask(call.found, reference))

    def answered(found: KeptManifest) -> web.Response:
        headers = {hdrs.CONTENT_TYPE: found.media_type, DIGEST: found.digest, **OCI.headers}
        return web.Response(body=found.content, headers=headers)

    @api.add(
        "PUT",
        NAME + "/manifests/{reference}",
        status=201,
        needs=need(Action.WRITE),
        section=SECTION,
    )
    async def put_manifest(call: Call, query: PushQuery) -> web.Response:
        """Push a manifest; ``tag`` in the query, as often as wanted, lets tags lead to it too."""
        request = call.request
        reference = _reference(call)
        tags = [parse_tag(tag) for tag in request.query.getall("tag", [])]
        content = await read_json(request, bytes, MAX_MANIFEST)
        manifest = await service.put_manifest(
            call.found, reference, tags, content, request.content_type, whole=query.whole
        )
        answer = web.Response(status=201, headers=OCI.headers)
        answer.headers[hdrs.LOCATION] = f"{V2}/{call.found.path}/manifests/{manifest.digest}"
        answer.headers[DIGEST] = manifest.digest
        if manifest.subject is not None:
            answer.headers["OCI-Subject"] = manifest.subject
        for tag in tags:
            answer.headers.add("OCI-Tag", tag)
        return answer

    @api.add(
        "DELETE",
        NAME + "/manifests/{reference}",
        status=202,
        needs=need(Action.WRITE),
        section=SECTION,
    )
    async def remove_manifest(call: Call) -> None:
        """Remove a tag, or by its digest a manifest with all its tags."""
        await service.remove(call.found, _reference(call))

    @api.add("HEAD", NAME + "/blobs/{digest}", needs=need(Action.READ), section=SECTION)
    async def look_at_blob(call: Call) -> web.Response:
        """Whether a repository has a blob, and how large it is."""
        digest = parse_digest(call.segment("digest"))
        size = await mirrors.size_of_blob(call.found, digest)
        if size is None:
            size = await service.blob_size(call.found, digest)
        return web.Response(headers={**_blob_headers(digest), hdrs.CONTENT_LENGTH: str(size)})

    @api.add(
        "GET", NAME + "/blobs/{digest}", needs=need(Action.READ), section=SECTION, streams=BYTES
    )
    async def get_blob(call: Call) -> web.StreamResponse:
        """A blob, or the part of it that Range asks for."""
        digest = parse_digest(call.segment("digest"))
        fetch = await mirrors.bring_blob(call.found, digest)
        if fetch is not None:
            fd = None if hdrs.RANGE in call.request.headers else await fetch.begun()
            if fd is not None:
                return await _send_coming(call, service, fetch, fd)
            await fetch.whole()
        blob = await service.open_blob(call.found, digest)
        try:
            headers = _blob_headers(digest)
            try:
                part = requested_range(call.request.headers.get(hdrs.RANGE), blob.size)
            except ValueError:
                raise RegistryError(
                    "RANGE_INVALID", 416, f"The blob has {blob.size} bytes: ask for some of them."
                ) from None
            first, end = part or (0, blob.size)
            if part is not None:
                headers |= content_range(first, end, blob.size)
            answer = web.StreamResponse(status=200 if part is None else 206, headers=headers)
            await send_part(call.request, answer, service, blob.fd, first, end)
            return answer
        finally:
            blob.close()

    @api.add(
        "DELETE", NAME + "/blobs/{digest}", status=202, needs=need(Action.WRITE), section=SECTION
    )
    async def remove_blob(call: Call) -> None:
        """Take a blob from a repository whose images do not need it."""
        await service.remove_blob(call.found, parse_digest(call.segment("digest")))

    return [api, *add_upload_routes(api, service, need)]


async def _send_coming(
    call: Call, service: RegistryService, fetch: Fetch, fd: int
) -> web.StreamResponse:
    """A blob while it comes, of which ``fd`` is closed then.

    Where it comes to nothing the connection ends before its last byte.
    """
    try:
        answer = web.StreamResponse(headers=_blob_headers(fetch.digest))
        answer.content_length = fetch.size
        sent = 0
        while True:
            # Where nothing has come yet, an error is an answer of its own.
            piece = await fetch.piece(service.in_thread, fd, sent)
            if not answer.prepared:
                await answer.prepare(call.request)
            if not piece:
                break
            sent += len(piece)
            await answer.write(piece)
        await answer.write_eof()
        return answer
    finally:
        os.close(fd)


def _lister(caller: Identity) -> Identity:
    """As who the list of all repositories is made. Raises OutOfScope."""
    if not isinstance(caller, ScopedIdentity):
        return caller
    if not caller.good_for.lists:
        raise OutOfScope("This token is not for the list of repositories: get one that is.")
    return caller.unscoped()


def _reference(call: Call) -> str:
    text = call.segment("reference")
    return parse_digest(text) if is_digest(text) else parse_tag(text)


def _blob_headers(digest: str) -> dict[str, str]:
    return {
        hdrs.CONTENT_TYPE: BYTES,
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.ETAG: f'"{digest}"',
        DIGEST: digest,
        **OCI.headers,
    }


def _limit(query: PageOf) -> int:
    if query.n < 0:
        raise RegistryError("PAGINATION_NUMBER_INVALID", 400, f"n is {query.n}: it is 0 or more.")
    return min(query.n, PAGE)


def _page(call: Call, body: object, found: list[str], limit: int) -> web.Response:
    answer = json_response(body)
    answer.headers.update(OCI.headers)
    if 0 < limit < len(found):
        _link(call, answer, n=str(limit), last=found[limit - 1])
    return answer


def _link(call: Call, answer: web.Response, **changed: str) -> None:
    """Say where the next page is."""
    query = {**call.request.query, **changed}
    answer.headers[hdrs.LINK] = f'<{call.request.path}?{urlencode(query)}>; rel="next"'
