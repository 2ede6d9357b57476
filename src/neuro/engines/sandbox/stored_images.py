"""Images of registries, kept in a store of layers on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection

from neuro.domain.errors import InvalidInput
from neuro.engines.base import EngineFault, NotReady, PullCredentials
from neuro.engines.images.composing import Base
from neuro.engines.images.faults import FaultKind, ImageFault
from neuro.engines.images.pulling import Pull
from neuro.engines.images.reach import OUTSIDE, Reach
from neuro.engines.images.references import PUBLIC, Reference, parse
from neuro.engines.images.stopping import Stop
from neuro.engines.images.store import HeldImage, Store
from neuro.engines.sandbox.images import (
    ImageRefused,
    InvalidImageName,
    RegistryAway,
    Root,
)
from neuro.engines.sandbox.reachability import Reachability

MOST_LAYERS = 400  # of one overlay; the kernel takes 500, and a page of options
_UNUSED_SECONDS = 30 * 86400.0  # after which an image goes that no run has had


class StoredImages:
    """See ``Images``. A tag is asked for at each start; where its registry is away, what it meant
    last is taken. With credentials its registry is always asked.

    ``most`` is bytes that images which nobody uses may take. ``reach`` is where registries may
    be, ``public`` are those that are everybody's.
    """

    def __init__(
        self,
        store: Store,
        most: int,
        reach: Reach = OUTSIDE,
        public: Collection[str] = PUBLIC,
    ) -> None:
        self._store = store
        self._most = most
        self.reach = reach
        self._public = public
        self._reachability = Reachability()

    def open(self) -> None:
        """See the protocol."""
        self._store.open()

    def ready(
        self,
        reference: str,
        credentials: PullCredentials | None,
        told: Callable[[float], None],
        stop: Stop,
    ) -> Root:
        """See the protocol."""
        try:
            asked = parse(reference)
        except InvalidInput as error:
            raise InvalidImageName(str(error)) from None
        # What asks for credentials is not everybody's: its registry says each time who may have it.
        # That it is away would be no proof, as whoever asks for too much at once is told so too.
        kept = self._kept(asked) if credentials is None else None
        if kept is not None and kept.grant and asked.digest:
            return self._root(kept, stop)
        try:
            self._reach(asked)
            pulled = self._pulled(asked, credentials, told, stop)
        except RegistryAway:
            if kept is None:
                raise
            return self._root(kept, stop)
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        if kept is not None:
            kept.close()
        return self._root(pulled, stop)

    def tidy(self) -> None:
        """See the protocol."""
        self._store.settle()  # else what has come would be fetched again after a power loss
        self._store.sweep(unused_for=_UNUSED_SECONDS, most=self._most)

    def why_away(self, registry: str) -> str | None:
        """See the protocol."""
        if registry not in self._public:
            return None
        why = self._reachability.why_away(Reference(registry, "", "", "").host)
        return None if why is None else f"{registry} cannot be reached: {why}"

    def base(self, grant: str) -> Base | None:
        """See the protocol."""
        granted = self._store.granted(grant)
        image = self._store.known(granted.identity) if granted else None
        return Base(granted.manifest, image.document) if granted and image else None

    def _kept(self, asked: Reference) -> HeldImage | None:
        known = self._store.named(str(asked))
        return None if known is None else self._store.image(known.identity, known.grant)

    def _pulled(
        self,
        asked: Reference,
        credentials: PullCredentials | None,
        told: Callable[[float], None],
        stop: Stop,
    ) -> HeldImage:
        pull = Pull(
            self._store,
            asked,
            credentials,
            reach=self.reach,
            tell=told,
            stop=stop,
        )
        try:
            return pull.run()
        except ImageFault as fault:
            raise self._error(fault, asked) from None

    def _error(self, fault: ImageFault, asked: Reference) -> EngineFault:
        match fault.kind:
            case FaultKind.AWAY:
                # That it answers something, if only to wait, shows that it can be reached.
                self._reachability.forget(asked.host)
                return RegistryAway(fault.sentence, is_public=False)
            case FaultKind.NO_ROOM:
                return NotReady(fault.sentence)
            case _:
                return ImageRefused(_about(asked, fault.sentence))

    def _reach(self, asked: Reference) -> None:
        """Raise RegistryAway where there is no way to a public registry."""
        sentence = self.why_away(asked.registry)
        if sentence is not None:
            raise RegistryAway(sentence, is_public=True)

    def _root(self, held: HeldImage, stop: Stop) -> Root:
        try:
            layers = tuple(self._store.folders(held, MOST_LAYERS, stop))
        except BaseException:
            held.close()
            raise
        lock = self._store.shelves.image_lock(held.image.identity)
        return Root(layers, held.image.config, lock, held.grant, held.close)


def _about(asked: Reference, sentence: str) -> str:
    """What is wrong with an image; said of it, where the sentence does not name it."""
    return sentence if asked.repository in sentence else f"{asked} cannot be pulled. {sentence}"
