"""Pulling an image: its manifest, its config, and whatever of its layers is not here yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from neuro.engines.images.connections import Connections
from neuro.engines.images.downloading import Downloads
from neuro.engines.images.faults import FaultKind, ImageFault, refused
from neuro.engines.images.manifests import (
    LARGEST_CONFIG,
    Descriptor,
    Index,
    Manifest,
    Platform,
    choose,
    read_config,
    read_manifest,
    this_machine,
)
from neuro.engines.images.reach import OUTSIDE, Reach
from neuro.engines.images.references import Reference
from neuro.engines.images.registry_client import Registry
from neuro.engines.images.shelves import StoredImage, grant_of
from neuro.engines.images.stopping import Stop, Stopped
from neuro.engines.images.store import HeldImage, HeldLayer, Origin, Store
from neuro.engines.runs import PullCredentials

_AT_ONCE = 3  # layers, as docker
_DEEPEST, _MOST_DOCUMENTS = 4, 16  # of indexes in indexes; of manifests and indexes looked at
_PAUSE = 1.0  # seconds after the first download that brought nothing
_TELL_SECONDS = 0.1  # between two words about how far it is
_LONGEST = 2 * 3600.0  # seconds; what came until then is not fetched again by the next pull


@dataclass(frozen=True)
class Resolved:
    """What a reference means: the manifest for our platform, the config, and both digests.

    ``digest`` is that of the manifest, or of the index that it was chosen from; ``own`` is that of
    the manifest itself, and ``body`` how that is written.
    """

    manifest: Manifest
    body: bytes
    own: str
    digest: str
    config: bytes

    @property
    def identity(self) -> str:
        """The digest of the config: which image it is."""
        return self.manifest.config.digest


class Pull:
    """One image on its way into a store.

    ``tell`` is told how far that is, from 0 to 1, by several threads, ten times in a second at
    most. ``reach`` is where its registry may be. ``stop`` ends it from another thread, and so do
    ``longest`` seconds. ``own`` and ``connections`` are as in ``Registry``.
    """

    def __init__(
        self,
        store: Store,
        reference: Reference,
        credentials: PullCredentials | None = None,
        *,
        reach: Reach = OUTSIDE,
        platform: Platform | None = None,
        tell: Callable[[float], None] = lambda share: None,
        pause: float = _PAUSE,
        stop: Stop | None = None,
        longest: float = _LONGEST,
        own: bool = False,
        connections: Connections | None = None,
    ) -> None:
        self._store = store
        self._reference = reference
        self._stop = stop or Stop()
        self._registry = Registry(
            reference, credentials, reach, stop=self._stop, own=own, connections=connections
        )
        self._source = f"{reference.host}/{reference.repository}"
        self._downloads = Downloads(store, self._source, self._registry, self._stop, pause)
        # By a name that is kept an image is found without asking: not one that was asked for as
        # somebody, also where the registry has another address by then.
        self._name = str(reference) if credentials is None else None
        self._platform = platform or this_machine()
        self._tell = tell
        self._longest = longest
        self._is_late = False
        self._lock = threading.Lock()
        self._told_at = 0.0
        self._bodies: dict[Manifest, bytes] = {}
        self._come = 0  # bytes of blobs, each counted when it is here and when it is unpacked
        self._all = 1

    def stop(self) -> None:
        """End it, from another thread."""
        self._stop.set()

    def resolve(self) -> Resolved:
        """Ask the registry what the image is, and fetch nothing of it. Raises ImageFault."""
        manifest, own, digest = self._manifest()
        body = self._registry.small_blob(manifest.config.digest, LARGEST_CONFIG)
        return Resolved(manifest, self._bodies[manifest], own, digest, body)

    def run(self, resolved: Resolved | None = None) -> HeldImage:
        """The image, held. Raises ImageFault, Stopped, and OSError for our own trouble.

        ``resolved`` is what ``resolve`` has told, if it was asked already.
        """
        timer = threading.Timer(self._longest, self._be_late)
        timer.daemon = True
        timer.start()
        try:
            return self._run(resolved)
        except Stopped:
            if not self._is_late:
                raise
            sentence = (
                f"The image {self._reference} did not come within {self._longest:.0f} seconds;"
                " what came of it is kept for the next try."
            )
            raise ImageFault(FaultKind.AWAY, sentence) from None
        finally:
            timer.cancel()

    def _be_late(self) -> None:
        self._is_late = True
        self._stop.set()

    def _run(self, resolved: Resolved | None) -> HeldImage:
        known = resolved or self.resolve()
        manifest, own, digest = known.manifest, known.own, known.digest
        identity = known.identity
        config = read_config(known.config, manifest)
        image = StoredImage(identity, config, known.config)
        grant = grant_of(self._source, own)
        present = self._store.image(identity, grant)
        if present is not None and not present.image.document:
            present.close()  # an earlier version kept less of it: its layers stay
        elif present is not None:
            granted = self._store.granted(grant)
            if granted is not None and granted.identity == identity:
                if self._name is not None:
                    self._store.remember(self._name, digest, identity, grant)
                return present
            present.close()
        pairs = list(zip(image.config.diff_ids, manifest.layers, strict=True))
        self._all = 2 * sum(blob.size for _, blob in pairs) or 1
        # Unpacked they are larger; who downloads and who unpacks looks at the disk again.
        missing = {one: blob.size for one, blob in pairs if not self._store.has(one)}
        self._store.check_room(sum(missing.values()))
        while True:
            layers = self._layers(pairs)
            try:
                held = self._store.keep(self._name, digest, image, grant)
            finally:
                for layer in layers:
                    layer.close()
            if held is not None:
                self._store.grant(self._source, own, identity, known.body)
                return held

    def _manifest(self) -> tuple[Manifest, str, str]:
        """The manifest for our platform, its digest, and that of what the reference means."""
        body, media_type, first = self._registry.manifest(self._reference.version)
        waiting = [(self._read(body, media_type), first, 0)]
        seen = 1
        while waiting:
            document, own, depth = waiting.pop()
            if isinstance(document, Manifest):
                return document, own, first
            for one in reversed(self._chosen(document, depth)):
                seen += 1
                if seen > _MOST_DOCUMENTS:
                    raise refused(f"The image {self._reference} is an index of too many others.")
                waiting.append((self._below(one), one.digest, depth + 1))
        raise ImageFault(
            FaultKind.NOT_FOUND,
            f"The image {self._reference} is not for machines like this one ({self._platform}).",
        )

    def _chosen(self, index: Index, depth: int) -> list[Descriptor]:
        if depth == _DEEPEST:
            raise refused(f"The image {self._reference} is an index of indexes without an end.")
        chosen = choose(index, self._platform)
        # One with our platform is an image: others need not be looked at.
        return chosen[:1] if chosen and chosen[0].platform is not None else chosen

    def _below(self, one: Descriptor) -> Manifest | Index:
        body, media_type, _ = self._registry.manifest(one.digest)
        return self._read(body, one.media_type or media_type)

    def _read(self, body: bytes, media_type: str) -> Manifest | Index:
        document = read_manifest(body, media_type)
        if isinstance(document, Manifest):
            self._bodies[document] = body
        return document

    def _layers(self, pairs: list[tuple[str, Descriptor]]) -> list[HeldLayer]:
        """All layers, several at once. Raises what the first that failed did."""
        with ThreadPoolExecutor(_AT_ONCE, "image-pull") as threads:
            futures = [threads.submit(self._layer, *pair) for pair in pairs]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if any(one.exception() is not None for one in done):
                for one in futures:
                    one.cancel()
                self._stop.set()
        faults = [fault for one in futures if (fault := _fault(one)) is not None]
        if not faults:
            return [one.result() for one in futures]
        for one in futures:
            if not one.cancelled() and one.exception() is None:
                one.result().close()
        # Those that were stopped because of another tell nothing.
        raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])

    def _layer(self, diff_id: str, blob: Descriptor) -> HeldLayer:
        self._stop.check()
        counted = _Counted(self._count)
        held = self._store.layer(
            diff_id,
            lambda: self._downloads.open(blob, counted.reach),
            origin=Origin(
                self._reference.host,
                self._source,
                blob.digest,
                lambda: self._registry.has(blob.digest),
            ),
            stop=self._stop,
            # Somebody else's download of the same is ours too.
            waiting=lambda: counted.reach(min(self._downloads.size(blob), blob.size)),
        )
        counted.reach(2 * blob.size)
        return held

    def _count(self, size: int) -> None:
        with self._lock:
            self._come += size
            share = min(1.0, self._come / self._all)
            now = time.monotonic()
            if share < 1.0 and now - self._told_at < _TELL_SECONDS:
                return
            self._told_at = now
        self._tell(share)


class _Counted:
    """What of one blob was counted already."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._reached = 0

    def reach(self, size: int) -> None:
        if size > self._reached:
            self._count(size - self._reached)
            self._reached = size


def _fault(future: Future[HeldLayer]) -> BaseException | None:
    return Stopped() if future.cancelled() else future.exception()
