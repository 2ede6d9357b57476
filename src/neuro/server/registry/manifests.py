"""What a manifest says: the blobs and manifests that an image is made of. Pure."""

from __future__ import annotations

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.texts import check_text
from neuro.server.registry.errors import invalid_manifest
from neuro.server.registry.names import parse_digest

MAX_MANIFEST = 4 << 20
MAX_DESCRIPTORS = 10_000
MAX_MEDIA_TYPE = 255

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_INDEXES = (OCI_INDEX, DOCKER_LIST)


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One thing that a manifest names; ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _Content(msgspec.Struct, frozen=True, rename="camel"):
    """Both kinds of manifests: one has layers, the other manifests."""

    schema_version: int
    media_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A manifest that was looked at. ``references`` are the digests that it needs, sorted.

    ``subject`` is the digest of what it is about; ``listed`` is how it is listed there.
    """

    digest: str
    media_type: str
    content: bytes
    references: tuple[str, ...]
    subject: str | None
    listed: Descriptor

    @property
    def is_index(self) -> bool:
        """Whether it names manifests, and not blobs."""
        return self.media_type in _INDEXES


def parse_manifest(content: bytes, media_type: str, digest: str) -> Manifest:
    """Look at a manifest that was pushed with a ``Content-Type``.

    Raises RegistryError MANIFEST_INVALID, DIGEST_INVALID.
    """
    if media_type not in _MANIFESTS + _INDEXES:
        raise invalid_manifest(
            f"Manifests of the type '{media_type[:MAX_MEDIA_TYPE]}' are not kept here: push the"
            " image as an OCI one, or as Docker's schema 2."
        )
    try:
        found = _decode(content)
    except RecursionError:
        raise invalid_manifest("The manifest is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid_manifest(f"The manifest is not what its type says: {error}") from None
    if found.schema_version != 2:
        raise invalid_manifest(
            f"The manifest's schemaVersion is {found.schema_version}: push it as version 2, with a"
            " newer client."
        )
    if found.media_type not in (None, media_type):
        raise invalid_manifest(
            f"The manifest says that it is '{found.media_type}', and was pushed as '{media_type}'."
        )
    if media_type in _INDEXES:
        if found.manifests is None or found.layers is not None:
            raise invalid_manifest("An index has 'manifests', and no 'layers'.")
        parts = found.manifests
        artifact_type = found.artifact_type
    else:
        if found.config is None or found.layers is None or found.manifests is not None:
            raise invalid_manifest("A manifest has 'config' and 'layers', and no 'manifests'.")
        parts = [found.config, *found.layers]
        artifact_type = found.artifact_type or found.config.media_type
    try:
        check_text(artifact_type or "", "artifactType")  # It is a column: PostgreSQL keeps no NUL.
    except InvalidInput as error:
        raise invalid_manifest(error.message) from None
    if len(parts) > MAX_DESCRIPTORS:
        raise invalid_manifest(f"A manifest can name {MAX_DESCRIPTORS} things, not {len(parts)}.")
    for part in parts if found.subject is None else [*parts, found.subject]:
        parse_digest(part.digest)
        if part.size < 0:
            raise invalid_manifest(f"The size of {part.digest} is {part.size}: it is 0 or more.")
    return Manifest(
        digest=digest,
        media_type=media_type,
        content=content,
        references=tuple(sorted({part.digest for part in parts})),
        subject=found.subject.digest if found.subject else None,
        listed=Descriptor(media_type, digest, len(content), artifact_type, found.annotations),
    )


def size_in(content: bytes, digest: str) -> int | None:
    """How many bytes a blob has by the word of a manifest that was looked at."""
    found = _decode(content)
    parts = [*(found.layers or ()), *([found.config] if found.config else ())]
    return next((part.size for part in parts if part.digest == digest), None)


def told_size(content: bytes) -> int | None:
    """How many bytes all blobs of an image have by the word of its manifest; None for an index."""
    found = _decode(content)
    if found.config is None:
        return None
    sizes: dict[str, int] = {
        part.digest: part.size for part in (found.config, *(found.layers or ()))
    }
    return sum(sizes.values())


_decode = msgspec.json.Decoder(_Content).decode
