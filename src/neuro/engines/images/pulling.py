"""Pulling an image: its manifest, its config, and whatever of its layers is not here yet."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from neuro.engines.images import locks
from neuro.engines.images.faults import FaultKind, ImageFault, corrupt, refused
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
from neuro.engines.images.processes import Stopped
from neuro.engines.images.references import Reference
from neuro.engines.images.registry_client import Answer, Registry
from neuro.engines.images.shelves import StoredImage
from neuro.engines.images.store import HeldImage, HeldLayer, Store
from neuro.engines.images.unpacking import Unpacking
from neuro.engines.runs import PullCredentials

_AT_ONCE = 3  # layers, as docker
_DEEPEST, _MOST_DOCUMENTS = 4, 16  # of indexes in indexes; of manifests and indexes looked at
_PIECE = 1 << 18
_TRIES, _PAUSE = 5, 1.0  # downloads that bring nothing, and seconds after the first of them


class Pull:
    """One image on its way into a store.

    ``tell`` is told how far that is, from 0 to 1, by several threads. ``insecure`` are registries
    that are asked by http.
    """

    def __init__(
        self,
        store: Store,
        reference: Reference,
        credentials: PullCredentials | None = None,
        *,
        insecure: Collection[str] = (),
        platform: Platform | None = None,
        tell: Callable[[float], None] = lambda share: None,
        pause: float = _PAUSE,
    ) -> None:
        self._store = store
        self._reference = reference
        self._registry = Registry(reference, credentials, insecure)
        # By a name that is kept an image is found without asking: not one that was asked for as
        # somebody, also where the registry has another address by then.
        self._name = str(reference) if credentials is None else None
        self._platform = platform or this_machine()
        self._tell = tell
        self._pause = pause
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._unpackings: set[Unpacking] = set()
        self._bodies: dict[Manifest, bytes] = {}
        self._come = 0  # bytes of blobs, each counted when it is here and when it is unpacked
        self._all = 1

    def stop(self) -> None:
        """End it, from another thread."""
        self._stopped.set()
        with self._lock:
            unpackings = list(self._unpackings)
        for one in unpackings:
            one.stop()

    def run(self) -> HeldImage:
        """The image, held. Raises ImageFault, Stopped, and OSError for our own trouble."""
        manifest, digest = self._manifest()
        identity = manifest.config.digest
        body = self._registry.small_blob(identity, LARGEST_CONFIG)
        config = read_config(body, manifest)
        image = StoredImage(identity, config, self._bodies[manifest], body)
        present = self._store.image(identity)
        if present is not None and not present.image.manifest:
            present.close()  # an earlier version kept less of it: its layers stay
        elif present is not None:
            if self._name is not None:
                self._store.remember(self._name, digest, identity)
            return present
        pairs = list(zip(image.config.diff_ids, manifest.layers, strict=True))
        self._all = 2 * sum(blob.size for _, blob in pairs) or 1
        while True:
            layers = self._layers(pairs)
            try:
                held = self._store.keep(self._name, digest, image)
            finally:
                for layer in layers:
                    layer.close()
            if held is not None:
                return held

    def _manifest(self) -> tuple[Manifest, str]:
        """The manifest for our platform, and the digest of what the reference means."""
        body, media_type, first = self._registry.manifest(self._reference.version)
        waiting = [(self._read(body, media_type), 0)]
        seen = 1
        while waiting:
            document, depth = waiting.pop()
            if isinstance(document, Manifest):
                return document, first
            for one in reversed(self._chosen(document, depth)):
                seen += 1
                if seen > _MOST_DOCUMENTS:
                    raise refused(f"The image {self._reference} is an index of too many others.")
                waiting.append((self._below(one), depth + 1))
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
                self.stop()
        faults = [fault for one in futures if (fault := _fault(one)) is not None]
        if not faults:
            return [one.result() for one in futures]
        for one in futures:
            if not one.cancelled() and one.exception() is None:
                one.result().close()
        # Those that were stopped because of another tell nothing.
        raise next((fault for fault in faults if not isinstance(fault, Stopped)), faults[0])

    def _layer(self, diff_id: str, blob: Descriptor) -> HeldLayer:
        def began(unpacking: Unpacking) -> None:
            with self._lock:
                self._unpackings.add(unpacking)
            if self._stopped.is_set():
                unpacking.stop()

        self._check()
        counted = _Counted(self._count)
        held = self._store.layer(diff_id, lambda: self._download(blob, counted), began)
        counted.reach(2 * blob.size)
        return held

    def _count(self, size: int) -> None:
        with self._lock:
            self._come += size
            share = min(1.0, self._come / self._all)
        self._tell(share)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    # Downloads

    def _download(self, blob: Descriptor, counted: _Counted) -> int:
        """A file with the blob, open and already without a name. Raises ImageFault."""
        shelves = self._store.shelves
        path = shelves.download(blob.digest)
        with locks.alone(shelves.download_lock(blob.digest)) as lock:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._fill(fd, blob, counted)
            except BaseException as error:
                os.close(fd)
                if isinstance(error, ImageFault) and error.kind is FaultKind.CORRUPT:
                    os.unlink(path)
                raise
            os.unlink(path)
            lock.remove()
        return fd

    def _fill(self, fd: int, blob: Descriptor, counted: _Counted) -> None:
        """Bring what is missing of a blob, and check all of it."""
        draft = _Draft(fd, blob)
        tries = 0
        while draft.size < blob.size:
            before = draft.size
            fault = self._more(draft, blob, counted)
            tries = 0 if draft.size > before else tries + 1
            if fault is not None:
                if tries == _TRIES:
                    raise fault
                self._stopped.wait(self._pause * 2 ** max(0, tries - 1))
                self._check()
        draft.check()

    def _more(self, draft: _Draft, blob: Descriptor, counted: _Counted) -> ImageFault | None:
        """One download; what it ended with if that is worth another try. Raises ImageFault."""
        sentence = f"The connection to the registry {self._reference.registry} is cut each time."
        cut = ImageFault(FaultKind.AWAY, sentence)
        try:
            with self._registry.blob(blob.digest, draft.size) as answer:
                if not _continues(answer, draft.size):
                    draft.begin()
                while piece := answer.read(_PIECE):
                    self._check()
                    draft.add(piece)
                    counted.reach(draft.size)
        except ImageFault as fault:
            if fault.kind is not FaultKind.AWAY:
                raise
            return fault
        except (ConnectionError, TimeoutError):
            return cut
        return cut if draft.size < blob.size else None


class _Draft:
    """A blob's file that is not whole yet; begins with what an earlier try brought."""

    def __init__(self, fd: int, blob: Descriptor) -> None:
        self._fd = fd
        self._blob = blob
        self.size = 0
        self._hash = hashlib.new(blob.digest.partition(":")[0])
        if os.fstat(fd).st_size > blob.size:
            self.begin()
        while piece := os.read(fd, _PIECE):
            self._hash.update(piece)
            self.size += len(piece)

    def begin(self) -> None:
        """Forget what is here."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.new(self._blob.digest.partition(":")[0])
        self.size = 0

    def add(self, piece: bytes) -> None:
        if self.size + len(piece) > self._blob.size:
            raise corrupt("The registry sends more of a layer than the image's manifest says.")
        self._hash.update(piece)
        left = memoryview(piece)
        while left:
            left = left[os.write(self._fd, left) :]
        self.size += len(piece)

    def check(self) -> None:
        if self._hash.hexdigest() != self._blob.digest.partition(":")[2]:
            raise corrupt("A layer of the image is not what its digest says.")


class _Counted:
    """What of one blob was counted already."""

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._reached = 0

    def reach(self, size: int) -> None:
        if size > self._reached:
            self._count(size - self._reached)
            self._reached = size


def _continues(answer: Answer, offset: int) -> bool:
    if answer.status != 206:
        return offset == 0
    return answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _fault(future: Future[HeldLayer]) -> BaseException | None:
    return Stopped() if future.cancelled() else future.exception()
