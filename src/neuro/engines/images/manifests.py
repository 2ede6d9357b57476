"""Manifests, indexes and configs of images: Docker's version 2 and OCI's, which differ in names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from neuro.engines.images.faults import ImageFault, corrupt, refused, shown

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_FIRST_SCHEMA = "application/vnd.docker.distribution.manifest.v1"
LARGEST_MANIFEST = 4 << 20  # what registries take at most
LARGEST_CONFIG = 8 << 20
_MOST_LAYERS = 500
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}")

_ARCHITECTURES = {
    **{"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7")},
    **{"ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "riscv64": ("riscv64", "")},
}


@dataclass(frozen=True)
class Platform:
    """For which machines an image is."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def this_machine() -> Platform:
    """The platform of the machine that this runs on."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


class _PlatformJSON(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str | None = None


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob or another manifest: by its digest, with its size."""

    digest: str
    size: int
    media_type: str = ""
    platform: _PlatformJSON | None = None
    urls: tuple[str, ...] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """One image: its config, and its layers from the lowest on."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(msgspec.Struct, frozen=True):
    """Images for several platforms, or indexes of them."""

    manifests: tuple[Descriptor, ...]


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What runs in an image unless the job says otherwise, and what its layers unpack to."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    working_folder: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    diff_ids: tuple[str, ...] = ()


class _Settings(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: tuple[str, ...] | str | None = None
    cmd: tuple[str, ...] | str | None = None
    env: tuple[str, ...] | None = None
    working_dir: str | None = None
    user: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None


class _Roots(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = None


class _ConfigJSON(msgspec.Struct, frozen=True):
    rootfs: _Roots
    config: _Settings | None = None


def is_digest(text: str) -> bool:
    """Whether this is a digest of a kind that registries use."""
    return _DIGEST.fullmatch(text) is not None


def read_manifest(body: bytes, media_type: str) -> Manifest | Index:
    """What a registry answered. ``media_type`` is what it said of it. Raises ImageFault."""
    document = _decoded(body, dict[str, Any], "manifest")
    kind = document.get("mediaType") or media_type.partition(";")[0].strip()
    if str(kind).startswith(_FIRST_SCHEMA) or document.get("schemaVersion") == 1:
        raise refused(
            "The image is in the form of Docker before 1.10. Push it again with a newer docker."
        )
    if kind in INDEXES or (kind not in MANIFESTS and "manifests" in document):
        index = _converted(document, Index)
        for one in index.manifests:
            _check(one)
        return index
    manifest = _converted(document, Manifest)
    _check(manifest.config)
    if manifest.config.size > LARGEST_CONFIG:
        raise refused(f"The image has a config of more than {LARGEST_CONFIG >> 20} MiB.")
    if len(manifest.layers) > _MOST_LAYERS:
        raise refused(f"The image has more than {_MOST_LAYERS} layers.")
    for layer in manifest.layers:
        _check(layer)
        if layer.urls:
            raise refused("The image has layers that are not in its registry (of Windows).")
        if "tar" not in layer.media_type:
            raise refused(
                f"This is no image that can run: a layer is of the type {shown(layer.media_type)}."
            )
    return manifest


def read_config(body: bytes, manifest: Manifest) -> ImageConfig:
    """The config of an image. Raises ImageFault."""
    document = _decoded(body, _ConfigJSON, "config")
    diff_ids = document.rootfs.diff_ids or ()
    if len(diff_ids) != len(manifest.layers):
        raise corrupt("The image's config and its manifest do not have the same layers.")
    for diff_id in diff_ids:
        if not _DIFF_ID.fullmatch(diff_id):
            raise refused(f"The image's config has a digest that is not sha256: {shown(diff_id)}.")
    settings = document.config or _Settings()
    found = ImageConfig(
        entrypoint=_words(settings.entrypoint),
        command=_words(settings.cmd),
        environment=settings.env or (),
        working_folder=settings.working_dir or "",
        user=settings.user or "",
        labels=settings.labels or {},
        stop_signal=settings.stop_signal or "",
        diff_ids=diff_ids,
    )
    words = (*found.entrypoint, *found.command, *found.environment, found.working_folder)
    if any("\0" in word for word in (*words, found.user)):
        raise refused("The image's config has a NUL character in it.")
    return found


def choose(index: Index, platform: Platform) -> list[Descriptor]:
    """What of an index to look at for a platform, the best first; nothing where none fits.

    Entries that say no platform may be indexes that have it, and come last.
    """
    ranked = [(_rank(one, platform), at) for at, one in enumerate(index.manifests)]
    return [index.manifests[at] for rank, at in sorted(ranked) if rank < _UNFIT]


_UNFIT = 9


def _rank(one: Descriptor, wanted: Platform) -> int:
    if one.platform is None or not (one.platform.os or one.platform.architecture):
        return 5
    if (one.platform.os, one.platform.architecture) != (wanted.os, wanted.architecture):
        return _UNFIT
    variant = one.platform.variant or ""
    if variant == wanted.variant:
        return 0
    if not variant or not wanted.variant:
        # arm64 without a variant is v8; of amd64, v2 and later need more than every machine has
        return 1 if wanted.architecture == "arm64" or not variant else _UNFIT
    return _later(variant, wanted.variant)


def _later(variant: str, wanted: str) -> int:
    """32-bit arm runs what is for an earlier version."""
    numbers = [text.removeprefix("v") for text in (variant, wanted)]
    if not all(text.isdigit() and len(text) < 3 for text in numbers):
        return _UNFIT
    difference = int(numbers[1]) - int(numbers[0])
    return 1 + difference if 0 < difference < 4 else _UNFIT


def _check(one: Descriptor) -> None:
    if not is_digest(one.digest):
        raise corrupt(f"The image's manifest has a digest that is none: {shown(one.digest)}.")
    if one.size < 0:
        raise corrupt("The image's manifest has a size below zero.")


def _words(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return ("/bin/sh", "-c", value) if isinstance(value, str) else value


_T = TypeVar("_T")


def _decoded(body: bytes, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(what, error) from error


def _converted(document: dict[str, Any], kind: type[_T]) -> _T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _unreadable("manifest", error) from error


def _unreadable(what: str, error: Exception) -> ImageFault:
    return corrupt(f"The image's {what} cannot be read: {error}.")
