"""The images that a build starts from: what their names mean, and their layers.

What a reference means is asked at each build. Where its registry is away, what it meant last is
taken, and that is said. The files of an image are fetched when a step needs them, not before.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from neuro.builder.cache import Cache
from neuro.builder.credentials import Credentials
from neuro.builder.faults import BuildFault
from neuro.builder.views import LayerFolder
from neuro.dockerfile.image import Image, ImageConfig
from neuro.dockerfile.platforms import Platform, parse_platform
from neuro.dockerfile.steps import BaseImage
from neuro.domain.errors import InvalidInput
from neuro.domain.images import (
    BASE_IMAGE,
    BASE_LABEL,
    ON_HOST,
    is_host_image,
    own_image,
    without_version,
)
from neuro.engines.images import manifests
from neuro.engines.images.connections import Connections
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.manifests import Manifest
from neuro.engines.images.reach import Reach
from neuro.engines.images.references import PUBLIC, Reference, parse

if TYPE_CHECKING:
    from neuro.engines.images.pulling import Pull, Resolved
    from neuro.engines.images.store import HeldImage, Store

_MOST_FOLDERS = 300  # of a base: the rest of what one overlay takes is for steps
_UNUSED = 30 * 86400.0  # seconds
_NO_WAY_OUT = "Start from `host`, or from an image that the platform has: FROM image:NAME:TAG."
_Tell = Callable[[float], None]


class NoSuchImage(BuildFault):
    """Its registry has no image of this name, or none for us."""


class OwnRegistry(NamedTuple):
    """The platform's: the host where it answers, and whose images are meant without an owner."""

    host: str
    cluster: str
    user: str


class _Known(msgspec.Struct, frozen=True):
    """What a reference meant, and in which words the registry said so."""

    manifest: Manifest
    body: bytes
    own: str
    digest: str
    config: bytes


class _Pulled(NamedTuple):
    """An image that is here, and its folders as they are mounted."""

    image: HeldImage
    layers: tuple[LayerFolder, ...]


class Base:
    """An image to start from. ``manifest`` and ``reference`` are None of the machine's userland.

    ``digest`` is what its registry has it by, empty of the userland.
    """

    def __init__(
        self,
        image: Image,
        identity: str,
        manifest: Manifest | None = None,
        reference: Reference | None = None,
        pull: Callable[[_Tell], _Pulled] | None = None,
        digest: str = "",
    ) -> None:
        self.image = image
        self.digest = digest
        self.identity = identity
        self.manifest = manifest
        self.reference = reference
        self.on_host = (image.config.labels or {}).get(BASE_LABEL) == ON_HOST
        self._pull = pull
        self._pulled: _Pulled | None = None
        self._lock = threading.Lock()

    def layers(self, tell: _Tell) -> tuple[LayerFolder, ...]:
        """The layers' folders, the lowest first, fetched if they are not here. Raises BuildFault.

        ``tell`` is told from 0 to 1 how far that is.
        """
        if self._pull is None:
            return ()
        with self._lock:
            if self._pulled is None:
                self._pulled = self._pull(tell)
            return self._pulled.layers

    def close(self) -> None:
        if self._pulled is not None:
            self._pulled.image.close()


class Bases:
    """All that one build starts from. To be closed.

    ``reach`` is where registries may be; ``own`` is what ``image:NAME`` means, and has images of
    the registries ``mirrors`` too. They are asked over ``connections``.
    """

    def __init__(
        self,
        cache: Cache,
        credentials: Credentials,
        reach: Reach,
        own: OwnRegistry | None,
        warn: Callable[[str], None],
        mirrors: Collection[str] = (),
        connections: Connections | None = None,
    ) -> None:
        self._connections = connections
        self._cache = cache
        self._credentials = credentials
        self._reach = reach
        self._own = own
        self._warn = warn
        self._mirrors = mirrors
        self._found: dict[BaseImage, Base] = {}

    def __enter__(self) -> Bases:
        return self

    def __exit__(self, *_: object) -> None:
        for base in self._found.values():
            base.close()

    @cached_property
    def _store(self) -> Store:
        from neuro.engines.images.store import Store  # many builds start from nothing pulled

        made = Store(f"{self._cache.folder}/images")
        made.open()
        return made

    def sweep(self, most: int) -> None:
        """Remove images that no build has used for long, the oldest beyond ``most`` bytes.

        Raises OSError.
        """
        if os.path.exists(f"{self._cache.folder}/images"):
            self._store.sweep(unused_for=_UNUSED, most=most)

    @property
    def images(self) -> Mapping[BaseImage, Image]:
        """The configurations of those that were looked up."""
        return {name: base.image for name, base in self._found.items()}

    @property
    def found(self) -> Mapping[BaseImage, Base]:
        """Those that were looked up."""
        return self._found

    def get(self, image: BaseImage) -> Base:
        """One that was looked up."""
        return self._found[image]

    def look_up(self, image: BaseImage, hint: str = "") -> Base:
        """What an image is. Raises BuildFault, with ``hint`` where there is no such image."""
        base = self._built_base(image) if without_version(image.reference) == BASE_IMAGE else None
        if base is None:
            on_host = is_host_image(image.reference)
            base = _host(image) if on_host else self._asked(image, image.reference, hint)
        self._found[image] = base
        return base

    def _built_base(self, image: BaseImage) -> Base | None:
        """The usual base, if whoever builds has one of their own."""
        if self._own is None:
            return None
        try:
            return self._asked(image, f"image:{image.reference}", "")
        except NoSuchImage:
            return None

    def _asked(self, image: BaseImage, name: str, hint: str) -> Base:
        reference = self._reference(name)
        resolved = self._resolved(image, reference, hint)

        def pull(tell: _Tell) -> _Pulled:
            try:
                held = self._pull(image, reference, tell).run(resolved)
            except ImageFault as fault:
                raise BuildFault(self._told(fault, reference, image)) from None
            try:
                return _Pulled(held, self._folders(held))
            except BaseException:
                held.close()
                raise

        return Base(
            _image_of(resolved.config, image.reference),
            resolved.identity,
            resolved.manifest,
            reference,
            pull,
            resolved.digest,
        )

    def _reference(self, name: str) -> Reference:
        """What a name means. Raises BuildFault."""
        try:
            if self._own is not None:
                found = own_image(name, cluster=self._own.cluster, user=self._own.user)
                name = name if found is None else found.at(self._own.host)
            elif name.startswith("image:"):
                raise BuildFault(
                    f"'{name}' has no registry in it.",
                    "Write the registry's address: FROM REGISTRY/OWNER/NAME:TAG.",
                )
            return self._mirrored(parse(name))
        except InvalidInput as wrong:
            raise BuildFault(str(wrong)) from None

    def _mirrored(self, reference: Reference) -> Reference:
        """Where an image is asked for: at the platform's registry, if that mirrors its own.

        Whoever has brought a password for a registry may want what only that one gives them.
        """
        own, registry = self._own, reference.registry
        if own is None or registry not in self._mirrors:
            return reference
        if self._credentials.of(registry) is not None or self._credentials.of(own.host) is None:
            return reference
        return replace(
            reference, registry=own.host, repository=f"{registry}/{reference.repository}"
        )

    def _folders(self, held: HeldImage) -> tuple[LayerFolder, ...]:
        """What is to be mounted: of merged layers nothing more is told beside."""
        beside = {layer.files: layer.beside for layer in held.layers}
        folders = self._store.folders(held, _MOST_FOLDERS)
        return tuple(LayerFolder(one, beside.get(one, "")) for one in folders)

    def _pull(self, image: BaseImage, reference: Reference, tell: _Tell) -> Pull:
        from neuro.engines.images.pulling import Pull

        wanted = parse_platform(image.platform, Platform()) or Platform()
        platform = manifests.Platform(wanted.os, wanted.architecture, wanted.variant)
        located = self._credentials.located(reference)
        return Pull(
            self._store,
            located,
            self._credentials.of(reference.registry),
            reach=self._reach,
            platform=platform,
            tell=tell,
            own=self._own is not None and located.registry == self._own.host,
            connections=self._connections,
        )

    def _resolved(self, image: BaseImage, reference: Reference, hint: str) -> Resolved:
        name = f"{reference} {image.platform}"
        try:
            found = self._pull(image, reference, lambda share: None).resolve()
        except ImageFault as fault:
            known = self._cache.known("bases", name, _Known)
            if fault.kind is not FaultKind.AWAY or known is None:
                kind = NoSuchImage if fault.kind is FaultKind.NOT_FOUND else BuildFault
                if fault.kind is FaultKind.AWAY and reference.registry in PUBLIC:
                    hint = hint or _NO_WAY_OUT
                raise kind(self._told(fault, reference, image), hint) from None
            self._warn(f"{fault.sentence} What {reference} was before is taken.")
            from neuro.engines.images.pulling import Resolved

            return Resolved(known.manifest, known.body, known.own, known.digest, known.config)
        known = _Known(found.manifest, found.body, found.own, found.digest, found.config)
        self._cache.remember("bases", name, known)
        return found

    def _told(self, fault: ImageFault, reference: Reference, image: BaseImage) -> str:
        """What is wrong; the platform's images are called as the Dockerfile calls them.

        The address that a build's job has for their registry says nothing to anybody else.
        """
        if self._own is None or reference.registry != self._own.host:
            return fault.sentence
        there = self._credentials.located(reference)
        told = fault.sentence.replace(str(there), image.reference)
        return told.replace(str(reference), image.reference)


def _host(image: BaseImage) -> Base:
    platform = parse_platform(image.platform, Platform()) or Platform()
    here = manifests.this_machine()
    if (platform.os, platform.architecture) != (here.os, here.architecture):
        raise BuildFault(
            f"The machine's userland is not for {image.platform}: this is {here}.",
            "Start from an image of that platform.",
        )
    # The programs that a job without an image finds, in the same order.
    path = os.environ.get("PATH", "")
    env = (f"PATH={path}",) if path else None
    config = ImageConfig(labels={BASE_LABEL: ON_HOST}, env=env)
    made = Image(architecture=platform.architecture, os=platform.os, config=config)
    return Base(made, ON_HOST)


def _image_of(config: bytes, reference: str) -> Image:
    """The configuration of an image; of words where lists belong, as old ones have them, lists."""
    try:
        plain: dict[str, Any] = json.loads(config)
        settings = plain.get("config") or {}
        for name in ("Entrypoint", "Cmd"):
            if isinstance(settings.get(name), str):
                settings[name] = ["/bin/sh", "-c", settings[name]]
        plain["config"] = {key: value for key, value in settings.items() if value is not None}
        kept = {key: value for key, value in plain.items() if value is not None}
        return msgspec.convert(kept, Image)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BuildFault(
            f"The configuration of {reference} cannot be read: {error}.", "Push the image again."
        ) from None
