"""Images of registries, kept in a store of layers on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection
from urllib.request import getproxies

from neuro.domain.errors import InvalidInput
from neuro.engines.base import EngineFault, NotReady, PullCredentials
from neuro.engines.images.composing import Base
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.processes import Stopped
from neuro.engines.images.pulling import Pull
from neuro.engines.images.references import Reference, parse
from neuro.engines.images.store import HeldImage, Store
from neuro.engines.sandbox.images import (
    ImageConfig,
    ImageRefused,
    InvalidImageName,
    RegistryAway,
    Root,
)

# Of these it is known that their names are right: if one cannot be reached, there is no way out of
# here. A registry that is nobody's but the company's may be away, and its jobs wait for it.
_PUBLIC = (
    *("docker.io", "ghcr.io", "quay.io", "gcr.io", "nvcr.io", "public.ecr.aws", "registry.k8s.io"),
    *("mcr.microsoft.com", "registry.gitlab.com"),
)
_CONNECT_SECONDS = 5.0  # for a public registry to be reached at all
_AWAY_SECONDS = 60.0  # that one which could not be reached is not tried again
_UNUSED_SECONDS = 30 * 86400.0  # after which an image goes that no run has had


class StoredImages:
    """See ``Images``. A tag is asked for at each start; where its registry is away, what it meant
    last is taken. With credentials its registry is always asked.

    ``most`` is bytes that images which nobody uses may take. ``insecure`` are registries that are
    asked by http, ``public`` those that are everybody's.
    """

    def __init__(
        self,
        store: Store,
        most: int,
        insecure: Collection[str] = (),
        public: Collection[str] = _PUBLIC,
    ) -> None:
        self._store = store
        self._most = most
        self._insecure = insecure
        self._public = public
        self._away: dict[str, tuple[float, str]] = {}  # hosts: until when, and why

    def open(self) -> None:
        """See the protocol."""
        self._store.open()

    def ready(
        self, reference: str, credentials: PullCredentials | None, told: Callable[[float], None]
    ) -> Root:
        """See the protocol."""
        try:
            asked = parse(reference)
        except InvalidInput as error:
            raise InvalidImageName(str(error)) from None
        # What asks for credentials is not everybody's: its registry says each time who may have it.
        # That it is away would be no proof, as whoever asks for too much at once is told so too.
        kept = self._kept(asked) if credentials is None else None
        if kept is not None and asked.digest:
            return self._root(kept)
        try:
            self._reach(asked)
            pulled = self._pulled(asked, credentials, told)
        except RegistryAway:
            if kept is None:
                raise
            return self._root(kept)
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        if kept is not None:
            kept.close()
        return self._root(pulled)

    def tidy(self) -> None:
        """See the protocol."""
        self._store.settle()  # else what has come would be fetched again after a power loss
        self._store.sweep(unused_for=_UNUSED_SECONDS, most=self._most)

    def base(self, lock: str) -> Base | None:
        """See the protocol."""
        image = self._store.locked(lock)
        return Base(image.manifest, image.document) if image and image.manifest else None

    def _kept(self, asked: Reference) -> HeldImage | None:
        known = self._store.named(str(asked))
        return None if known is None else self._store.image(known[0])

    def _pulled(
        self, asked: Reference, credentials: PullCredentials | None, told: Callable[[float], None]
    ) -> HeldImage:
        refusals: list[EngineFault] = []

        def tell(share: float) -> None:
            try:
                told(share)
            except EngineFault as refusal:  # nobody wants it any more
                refusals.append(refusal)
                pull.stop()

        pull = Pull(self._store, asked, credentials, insecure=self._insecure, tell=tell)
        try:
            return pull.run()
        except Stopped:
            raise refusals[0] from None
        except ImageFault as fault:
            raise self._error(fault, asked) from None

    def _error(self, fault: ImageFault, asked: Reference) -> EngineFault:
        match fault.kind:
            case FaultKind.AWAY:
                # That it answers something, if only to wait, shows that it can be reached.
                return RegistryAway(fault.sentence, is_public=False)
            case FaultKind.NO_ROOM:
                return NotReady(fault.sentence)
            case _:
                return ImageRefused(f"The image {asked} cannot be had. {fault.sentence}")

    def _reach(self, asked: Reference) -> None:
        """Raise RegistryAway where there is no way to a public registry."""
        if asked.registry not in self._public or "https" in getproxies():
            return
        until, why = self._away.get(asked.host, (0.0, ""))
        if time.monotonic() >= until:
            host, _, port = asked.host.partition(":")
            try:
                socket.create_connection((host, int(port or 443)), _CONNECT_SECONDS).close()
            except OSError as error:
                why = f"{asked.registry} cannot be reached ({error.strerror or error})"
                self._away[asked.host] = time.monotonic() + _AWAY_SECONDS, why
            else:
                return
        raise RegistryAway(why, is_public=True)

    def _root(self, held: HeldImage) -> Root:
        config = held.image.config
        return Root(
            tuple(layer.files for layer in held.layers),
            ImageConfig(
                entrypoint=config.entrypoint,
                cmd=config.command,
                env=config.environment,
                working_dir=config.working_folder,
                user=config.user,
                stop_signal=config.stop_signal,
            ),
            self._store.shelves.image_lock(held.image.identity),
            held.close,
        )
