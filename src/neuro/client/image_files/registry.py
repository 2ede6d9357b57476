"""Blobs and manifests of the platform's registry, and copies that go on where they broke off."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from typing import IO

from neuro.client.image_files.parts import MANIFESTS, MAX_DOCUMENT, Descriptor
from neuro.client.messages import answered, done
from neuro.client.transport import Params, Request, ServerUnreachable, Transport
from neuro.domain.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotPermitted,
    PlatformError,
    Unavailable,
)

_PIECE = 1 << 20
# How often a copy goes on after a connection broke off without anything having come through.
_PATIENCE = 5
_PAUSE_SECONDS = 1.0

Moved = Callable[[int], None]


class Registry:
    """Calls of the registry at ``top``, an address without a path.

    Every method raises what a Transport raises.
    """

    def __init__(self, transport: Transport, top: str) -> None:
        self._transport = transport
        self._top = top

    async def has_blob(self, repository: str, digest: str) -> bool:
        try:
            await done(self._transport, self._request("HEAD", f"{repository}/blobs/{digest}"))
        except NotFound:
            return False
        return True

    async def push_blob(
        self, repository: str, part: Descriptor, opened: Callable[[], IO[bytes]], moved: Moved
    ) -> bool:
        """Push a blob; whether it had to be sent. ``moved`` hears how many bytes are there."""
        place = await self._begin(repository, mount=part.digest)
        if place is None:
            return False  # Another image that this caller may read has it.
        at, patience = 0, _PATIENCE
        while at < part.size:
            try:
                with opened() as file:
                    file.seek(at)
                    body = _pieces(file, part.size - at, at, moved)
                    headers = {"Content-Type": "application/octet-stream"}
                    if at:
                        # Or what a lost connection still brings would come in between.
                        headers["Content-Range"] = f"{at}-{part.size - 1}"
                    await done(
                        self._transport,
                        Request(method="PATCH", path=place, body=body, headers=headers),
                    )
                at = part.size
            except PlatformError as error:
                if not _goes_on(error):
                    raise
                await self._transport.sleep(error.retry_after or _PAUSE_SECONDS)
                before = at
                place, at = await self._gone_on(repository, place)
                patience = _PATIENCE if at > before else patience - 1
                if patience < 0:
                    raise
        finish = Request(method="PUT", path=place, params=(("digest", part.digest),), body=b"")
        await done(self._transport, finish)
        return True

    async def check_push(self, repository: str) -> None:
        """Raise what a push would, before anything is sent: an upload begins, and is cancelled."""
        place = await self._begin(repository)
        if place is not None:
            with suppress(PlatformError):  # one that nobody goes on with goes by itself
                await done(self._transport, Request(method="DELETE", path=place))

    async def _begin(self, repository: str, mount: str | None = None) -> str | None:
        """Where an upload goes; None where the blob to ``mount`` is there at once."""
        params = (("mount", mount),) if mount else ()
        request = self._request("POST", f"{repository}/blobs/uploads/", params=params)
        try:
            async with answered(self._transport, request) as answer:
                await answer.read()
                return None if answer.status == 201 else self._place(answer.headers["Location"])
        except NotFound:
            # Whether there is such an image is nothing that everybody may know.
            raise NotPermitted(
                f"You may not push image:/{repository}: push under a name of your own, or ask its"
                " owner to share it with you: neuro share image:NAME YOU write"
            ) from None

    async def _gone_on(self, repository: str, place: str) -> tuple[str, int]:
        """Where an upload goes on, and how many bytes of it are there: a new one, if need be."""
        with suppress(NotFound, ServerUnreachable):
            async with answered(self._transport, Request(method="GET", path=place)) as answer:
                last = int(answer.headers.get("Range", "0-0").rpartition("-")[2])
                # Registries tell nothing and one byte alike.
                if last > 0:
                    return self._place(answer.headers.get("Location", place)), last + 1
        place = await self._begin(repository) or place
        return place, 0

    async def blob(
        self, repository: str, part: Descriptor, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """A blob from a byte on, wherever its connections break off."""
        at, patience = offset, _PATIENCE
        while at < part.size:
            before = at
            try:
                headers = {"Range": f"bytes={at}-{part.size - 1}"} if at else {}
                request = self._request("GET", f"{repository}/blobs/{part.digest}", headers=headers)
                async with answered(self._transport, request) as answer:
                    if at and answer.status != 206:
                        raise Conflict("The registry sends whole layers alone: pull it again.")
                    async for chunk in answer.chunks(_PIECE):
                        yield chunk[: part.size - at]
                        at += len(chunk)
                if at < part.size:
                    raise ServerUnreachable("The connection to the server was lost.")
            except Unavailable as error:
                patience = patience - 1 if at == before else _PATIENCE
                if patience < 0:
                    raise
                await self._transport.sleep(error.retry_after or _PAUSE_SECONDS)

    async def manifest(self, repository: str, reference: str) -> tuple[bytes, str]:
        """A manifest's content and media type."""
        headers = {"Accept": ", ".join(MANIFESTS)}
        request = self._request("GET", f"{repository}/manifests/{reference}", headers=headers)
        async with answered(self._transport, request) as answer:
            content = await answer.read()
            if len(content) > MAX_DOCUMENT:
                raise InvalidInput(f"The manifest {reference} is larger than 4 MiB.")
            kind = answer.headers.get("Content-Type", "").partition(";")[0]
            return content, kind

    async def put_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str
    ) -> None:
        request = self._request(
            "PUT",
            f"{repository}/manifests/{reference}",
            headers={"Content-Type": media_type},
            body=content,
        )
        await done(self._transport, request)

    def _request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        params: Params = (),
    ) -> Request:
        whole = f"{self._top}/v2/{path}"
        return Request(method=method, path=whole, headers=headers or {}, body=body, params=params)

    def _place(self, location: str) -> str:
        # The token goes along with it: to nobody but the server that was asked.
        if location.startswith("/"):
            return self._top + location
        if location.startswith(f"{self._top}/"):
            return location
        raise PlatformError(f"The registry sends an upload to another server: {location[:200]}")


def _goes_on(error: PlatformError) -> bool:
    """Whether an upload may go on where it is now, after this."""
    if isinstance(error, Unavailable):
        return not error.from_server or error.retry_after is not None
    # Another request brings a part still, or has brought more since we asked: a lost one of ours.
    return error.from_server and error.status in (409, 416)


def _pieces(file: IO[bytes], left: int, at: int, moved: Moved) -> Iterator[bytes]:
    while left > 0:
        piece = file.read(min(_PIECE, left))
        if not piece:
            raise InvalidInput("A file became shorter while it was read: copy it again.")
        yield piece
        left -= len(piece)
        at += len(piece)
        moved(at)
