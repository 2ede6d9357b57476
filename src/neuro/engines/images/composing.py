"""Making an image of another one: its manifest and its config, with more layers above."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from neuro.engines.images.faults import corrupt
from neuro.engines.images.manifests import MANIFESTS, Descriptor, Platform, this_machine

OCI_MANIFEST, DOCKER_MANIFEST = MANIFESTS
_CONFIGS = {
    OCI_MANIFEST: "application/vnd.oci.image.config.v1+json",
    DOCKER_MANIFEST: "application/vnd.docker.container.image.v1+json",
}
_LAYERS = {
    OCI_MANIFEST: "application/vnd.oci.image.layer.v1.tar+gzip",
    DOCKER_MANIFEST: "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


@dataclass(frozen=True)
class Base:
    """What an image begins from: the bytes of its manifest and of its config."""

    manifest: bytes
    config: bytes


@dataclass(frozen=True)
class NewLayer:
    """A layer's blob, a gzip: its digest and size, and its archive's digest.

    ``created_by`` is shown in the image's history, as what made it.
    """

    digest: str
    size: int
    diff_id: str
    created_by: str = ""


@dataclass(frozen=True)
class Composed:
    """A manifest and a config as they are pushed, and all blobs of which the image consists.

    ``layers`` begin with the lowest.
    """

    manifest: bytes
    media_type: str
    digest: str
    config: bytes
    config_blob: Descriptor
    layers: tuple[Descriptor, ...]


def image_of(
    base: Base | None,
    layers: Sequence[NewLayer],
    changes: Mapping[str, Any] | None = None,
    *,
    created: str,
    platform: Platform | None = None,
) -> Composed:
    """The image that has ``layers`` above those of ``base``, or alone.

    ``changes`` are of what its config says of commands in it, by Docker's names ("Cmd", "Env",
    "Labels"); None takes something out. ``created`` is a time in RFC 3339, ``platform`` is that of
    an image without a base, else this machine's. It is in OCI's form, or in Docker's where the base
    is. Raises ImageFault for a base that cannot be read.
    """
    manifest = _decoded(base.manifest, "manifest") if base else {}
    config = _decoded(base.config, "config") if base else _empty(platform or this_machine())
    form = DOCKER_MANIFEST if manifest.get("mediaType") == DOCKER_MANIFEST else OCI_MANIFEST
    settings = {**_part(config, "config"), **(changes or {})}
    roots = _part(config, "rootfs")
    diff_ids = [*(roots.get("diff_ids") or ()), *(layer.diff_id for layer in layers)]
    config = {
        **config,
        "created": created,
        "config": {key: value for key, value in settings.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    if base is None or "history" in config:
        past = config.get("history") or []
        config["history"] = [*past, *(_history(layer, created) for layer in layers)]
    body = msgspec.json.encode(config)
    above = [
        {"mediaType": _LAYERS[form], "digest": layer.digest, "size": layer.size} for layer in layers
    ]
    blob = {"mediaType": _CONFIGS[form], "digest": digest_of(body), "size": len(body)}
    whole = {
        "schemaVersion": 2,
        "mediaType": form,
        "config": blob,
        "layers": [*(manifest.get("layers") or ()), *above],
    }
    written = msgspec.json.encode(whole)
    try:
        descriptors = msgspec.convert(whole["layers"], tuple[Descriptor, ...])
    except msgspec.ValidationError as error:
        raise corrupt(f"The image's manifest cannot be read: {error}.") from error
    described = msgspec.convert(blob, Descriptor)
    return Composed(written, form, digest_of(written), body, described, descriptors)


def digest_of(body: bytes) -> str:
    """The digest by which a registry has these bytes."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _empty(platform: Platform) -> dict[str, Any]:
    made = {"architecture": platform.architecture, "os": platform.os}
    return {**made, "variant": platform.variant} if platform.variant else made


def _history(layer: NewLayer, created: str) -> dict[str, str]:
    made = {"created": created}
    return {**made, "created_by": layer.created_by} if layer.created_by else made


def _decoded(body: bytes, what: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise corrupt(f"The image's {what} cannot be read: {error}.") from error


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name) or {}
    if not isinstance(found, dict):
        raise corrupt(f"The image's config cannot be read: its '{name}' is not an object.")
    return found
