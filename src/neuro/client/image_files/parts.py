"""What an image is made of: the documents and blobs of the OCI image specification."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from neuro.domain.errors import InvalidInput

T = TypeVar("T")

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEXES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = (MANIFEST, "application/vnd.docker.distribution.manifest.v2+json", *INDEXES)

MAX_DOCUMENT = 4 << 20  # bytes of a manifest or an index, as registries take them
MAX_PARTS = 10_000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on."""

    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A part of an image; ``size`` in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """Of one image, which has a config and layers, or of an index, which has manifests."""

    media_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] = []
    manifests: list[Descriptor] = []


def document(content: bytes, kind: type[T], where: str) -> T:
    """A document of an image. Raises InvalidInput with the place of one that cannot be read."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidInput(f"{where} is damaged, or not of an image: {error}.") from None


def manifest_in(content: bytes, where: str) -> Manifest:
    """A manifest or an index. Raises InvalidInput for one that no registry would take."""
    found = document(content, Manifest, where)
    parts = [*found.layers, *found.manifests, *([found.config] if found.config else ())]
    if len(parts) > MAX_PARTS:
        raise InvalidInput(f"{where} has {len(parts)} parts: an image may have {MAX_PARTS}.")
    for part in parts:
        if not _DIGEST.fullmatch(part.digest) or part.size < 0:
            raise InvalidInput(f"{where} names a part without a right digest: it is damaged.")
    return found


def of_this_machine(manifests: Sequence[Descriptor]) -> Descriptor | None:
    """The image of several that runs on a machine like this one."""
    machine = platform.machine()
    own = Platform(_MACHINES.get(machine, machine), "linux")
    for one in manifests:
        if one.platform and (one.platform.architecture, one.platform.os) == (
            own.architecture,
            own.os,
        ):
            return one
    return manifests[0] if len(manifests) == 1 else None
