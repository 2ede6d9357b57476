"""Bringing an image to a registry: blobs that it has not yet, then the manifest that names them.

Until its manifest is there, nobody sees anything of an image. A connection that is cut goes on
where the registry says that it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Protocol
from urllib.parse import quote, urlencode

import msgspec

from neuro.engines.images.composing import Composed, digest_of
from neuro.engines.images.faults import FaultKind, ImageFault, corrupt, refused
from neuro.engines.images.manifests import Descriptor
from neuro.engines.images.references import Reference
from neuro.engines.images.registry_client import Answer, Registry, reason
from neuro.engines.images.stopping import Stopped

_PIECE = 1 << 18
_TRIES, _PAUSE = 5, 1.0  # tries that bring nothing, and seconds after the first of them
_SMALL = 1 << 20  # bytes of a blob that goes in one request
_ROUNDS = 3  # that a registry may say what it lacks
_MOST_TOLD = 256 << 10  # bytes of such an answer
_UPLOADS = "blobs/uploads/"
_STREAM = {"Content-Type": "application/octet-stream"}


class Source(Protocol):
    """Where a blob's bytes are. ``place`` is a repository of the registry that it is pushed to.

    That one's copy is taken where the registry gives it to the caller; "" where none is known.
    """

    place: str

    def read(self, offset: int) -> Iterator[bytes]:
        """The bytes from ``offset`` on. Raises ImageFault, OSError."""
        ...


class OfFile:
    """The bytes of an open file, which is read by its place and not by its position."""

    place = ""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int) -> Iterator[bytes]:
        """See Source."""
        while piece := os.pread(self._fd, _PIECE, offset):
            yield piece
            offset += len(piece)


class OfBytes:
    """These bytes."""

    place = ""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def read(self, offset: int) -> Iterator[bytes]:
        """See Source."""
        for at in range(offset, len(self._body), _PIECE):
            yield self._body[at : at + _PIECE]


class OfRegistry:
    """A blob of a registry, copied as it comes."""

    def __init__(self, registry: Registry, digest: str, place: str = "") -> None:
        self.place = place
        self._registry, self._digest = registry, digest

    def read(self, offset: int) -> Iterator[bytes]:
        """See Source."""
        with self._registry.blob(self._digest, offset) as answer:
            early = offset if answer.status == 200 else 0
            while piece := _read(answer):
                if early >= len(piece):
                    early -= len(piece)
                    continue
                yield piece[early:]
                early = 0


def _read(answer: Answer) -> bytes:
    try:
        return answer.read(_PIECE)
    except OSError as error:
        sentence = "The registry that has the image's layers cuts the connection."
        raise ImageFault(FaultKind.AWAY, sentence) from error


class _Detail(msgspec.Struct, frozen=True):
    digest: str = ""


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    detail: _Detail | None = None


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Error] = []


def _missing(answer: Answer) -> frozenset[str]:
    """The digests that an answer of 404 says are missing; none of another kind of 404."""
    body = bytearray()
    try:
        while len(body) <= _MOST_TOLD and (piece := answer.read(_PIECE)):
            body += piece
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (OSError, msgspec.DecodeError):
        return frozenset()
    told = (one.detail for one in errors if one.code == "MANIFEST_BLOB_UNKNOWN")
    return frozenset(one.digest for one in told if one is not None)


class _Upload:
    """Where a blob is brought, and how much of it is there."""

    address = ""
    size = 0


class Push:
    """One image on its way to the place that ``reference`` names, through ``registry``.

    ``tell`` is told how far that is, from 0 to 1. ``whole`` says that the registry knows
    ``?whole=1`` of manifests (see docs/reference/wire-protocol.md#images): another one would keep
    a manifest without its blobs.
    """

    def __init__(
        self,
        registry: Registry,
        reference: Reference,
        *,
        tell: Callable[[float], None] = lambda share: None,
        pause: float = _PAUSE,
        whole: bool = False,
    ) -> None:
        self._whole = whole
        self._registry = registry
        self._reference = reference
        self._name = reference.registry
        self._tell = tell
        self._pause = pause
        self._stopped = threading.Event()
        self._before = self._all = 0  # bytes of blobs that are there, and of all

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped.set()

    def run(self, image: Composed, sources: Mapping[str, Source]) -> None:
        """Bring all of an image, whose layers have ``sources`` by their digest.

        Raises ImageFault, Stopped, and OSError for our own trouble.
        """
        blobs = {one.digest: one for one in (*image.layers, image.config_blob)}
        self._all = sum(one.size for one in blobs.values()) or 1
        every = {image.config_blob.digest: OfBytes(image.config), **sources}
        if self._whole and self._run_whole(image, blobs, every):
            return
        self._before = 0
        for digest, one in blobs.items():
            self.blob(one, every[digest])
        self.manifest(image.manifest, image.media_type)

    def _run_whole(
        self, image: Composed, blobs: Mapping[str, Descriptor], every: Mapping[str, Source]
    ) -> bool:
        """The same beginning with the manifest, so what is there is not asked for one by one.

        False where the registry still lacks something in the end.
        """
        for _ in range(_ROUNDS):
            with self._manifest_put(image.manifest, image.media_type, "?whole=1") as answer:
                told = _missing(answer) if answer.status == 404 else frozenset()
                if answer.status != 404:
                    self._check_kept(answer, image.manifest)
                    self._before = self._all
                    self._told(0)
                    return True
            missing = [one for digest, one in blobs.items() if digest in told]
            if not missing:
                return False  # It says something else, which is told where a blob is pushed.
            self._before = self._all - sum(one.size for one in missing)
            for one in missing:
                self.blob(one, every[one.digest], is_missing=True)
        return False

    def blob(self, blob: Descriptor, source: Source, *, is_missing: bool = False) -> None:
        """Bring one blob, unless it is there. Raises as ``run`` does.

        ``is_missing`` says that it is known not to be.
        """
        upload, reached, tries = _Upload(), 0, 0
        while is_missing or not self._has(blob):
            is_missing = False
            try:
                if upload.address:
                    self._look(upload)
                if not upload.address and not self._begin(upload, blob, source):
                    break
                tries = tries + 1 if upload.size <= reached else 1
                reached = max(reached, upload.size)
                if self._bring(upload, blob, source):
                    break
            except ImageFault as fault:
                if fault.kind is not FaultKind.AWAY or tries == _TRIES:
                    raise
                tries += not upload.address
                self._stopped.wait(self._pause * 2 ** max(0, tries - 1))
            else:
                if tries == _TRIES:
                    raise refused(f"The registry {self._name} loses what is uploaded to it.")
        self._before += blob.size
        self._told(0)

    def check(self) -> None:
        """Ask whether anything may be pushed there: an upload begins, and is cancelled.

        Raises as ``run`` does.
        """
        upload, tries = _Upload(), 0
        while not upload.address:
            tries += 1
            self._check()
            try:
                with self._registry.asked("POST", _UPLOADS, {"Content-Length": "0"}) as answer:
                    self._expect(answer, 202)
                    self._go_on(upload, answer)
            except ImageFault as fault:
                if fault.kind is not FaultKind.AWAY or tries == _TRIES:
                    raise
                self._stopped.wait(self._pause * 2 ** (tries - 1))
        # A registry that cannot cancel it forgets it some day.
        with suppress(ImageFault), self._registry.asked("DELETE", upload.address, {}):
            pass

    def manifest(self, body: bytes, media_type: str) -> None:
        """Put a manifest under the reference's tag or digest. Raises ImageFault, Stopped."""
        with self._manifest_put(body, media_type) as answer:
            self._check_kept(answer, body)

    def _manifest_put(
        self, body: bytes, media_type: str, query: str = ""
    ) -> AbstractContextManager[Answer]:
        self._check()
        address = f"manifests/{quote(self._reference.version, safe=':')}{query}"
        headers = {"Content-Type": media_type, "Content-Length": str(len(body))}
        return self._registry.asked("PUT", address, headers, lambda: (body,))

    def _check_kept(self, answer: Answer, body: bytes) -> None:
        """Raises ImageFault unless the registry keeps this manifest."""
        self._expect(answer, 201)
        named = answer.headers.get("Docker-Content-Digest")
        if named is not None and named != digest_of(body):
            raise corrupt(f"The registry {self._name} keeps another manifest than was pushed.")

    def _has(self, blob: Descriptor) -> bool:
        self._check()
        with self._registry.asked("HEAD", f"blobs/{blob.digest}", {}) as answer:
            # What is refused here has no body that says why: the upload's answer has.
            if answer.status in (401, 403, 404):
                return False
            self._expect(answer, 200)
            return True

    def _begin(self, upload: _Upload, blob: Descriptor, source: Source) -> bool:
        """Begin an upload; False where the blob is there.

        Another repository has it, or the platform's registry took it at once, as it is small.
        """
        query, headers, body = {}, {"Content-Length": "0"}, None
        if source.place:
            query = {"mount": blob.digest, "from": source.place}
        elif self._whole and blob.size <= _SMALL:
            query = {"digest": blob.digest}
            headers = {**_STREAM, "Content-Length": str(blob.size)}
            body = partial(self._pieces, blob, source, 0)
        address = _UPLOADS + (f"?{urlencode(query)}" if query else "")
        with self._registry.asked("POST", address, headers, body) as answer:
            if query and answer.status == 201:
                return False
            self._expect(answer, 202)
            upload.size = 0
            self._go_on(upload, answer)
            return True

    def _look(self, upload: _Upload) -> None:
        """How much of an upload is there; it has no address any more where it is gone."""
        with self._registry.asked("GET", upload.address, {}) as answer:
            if answer.status == 404:
                upload.address = ""
                return
            self._expect(answer, 204)
            first, _, last = answer.headers.get("Range", "0-0").partition("-")
            if first.removeprefix("bytes=") != "0" or not last.isdigit():
                raise corrupt(f"The registry {self._name} does not say how much has arrived.")
            if last == "0":
                upload.address = ""  # it tells one byte as it tells none
                return
            upload.size = int(last) + 1
            self._go_on(upload, answer)

    def _bring(self, upload: _Upload, blob: Descriptor, source: Source) -> bool:
        """Bring what is missing, and end the upload; False where it is somewhere else by now."""
        offset = upload.size
        if offset > blob.size:
            raise refused(f"The registry {self._name} has more of a layer than was sent.")
        if offset < blob.size:
            headers = {**_STREAM, "Content-Length": str(blob.size - offset)}
            if offset:
                headers["Content-Range"] = f"{offset}-{blob.size - 1}"
            with self._registry.asked(
                "PATCH", upload.address, headers, lambda: self._pieces(blob, source, offset)
            ) as answer:
                if answer.status in (404, 416):
                    return False
                self._expect(answer, 202)
                self._go_on(upload, answer)
        end = "&" if "?" in upload.address else "?"
        address = f"{upload.address}{end}{urlencode({'digest': blob.digest})}"
        with self._registry.asked("PUT", address, {"Content-Length": "0"}) as answer:
            self._expect(answer, 201)
        return True

    def _pieces(self, blob: Descriptor, source: Source, offset: int) -> Iterator[bytes]:
        for piece in source.read(offset):
            self._check()
            offset += len(piece)
            if offset > blob.size:
                break  # The rest would be taken for another request.
            yield piece
            self._told(offset)
        if offset != blob.size:
            raise corrupt(f"A layer of the image has {offset} bytes instead of {blob.size}.")

    def _go_on(self, upload: _Upload, answer: Answer) -> None:
        upload.address = answer.headers.get("Location") or upload.address
        if not upload.address:
            raise corrupt(f"The registry {self._name} does not say where to upload.")

    def _told(self, more: int) -> None:
        self._tell(min(1.0, (self._before + more) / (self._all or 1)))

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _expect(self, answer: Answer, status: int) -> None:
        """Raises ImageFault for another answer."""
        if answer.status == status:
            return
        why, name = reason(answer), self._name
        if answer.status in (401, 403, 404):
            if answer.status == 404 and why.startswith("The image "):
                why = "it is not yours to write"  # our own hides whether there is one
            sentence = f"The registry {name} does not let you push {self._reference}: {why}."
            if answer.status == 404:
                sentence += " Push under a name of your own, or ask its owner to let you write it."
            raise ImageFault(FaultKind.DENIED, sentence)
        if answer.status == 507:
            raise ImageFault(FaultKind.NO_ROOM, f"The registry {name} has no room: {why}.")
        if answer.status == 429 or answer.status >= 500:
            raise ImageFault(FaultKind.AWAY, f"The registry {name} cannot answer now: {why}.")
        raise refused(f"The registry {name} does not take {self._reference}: {why}.")
