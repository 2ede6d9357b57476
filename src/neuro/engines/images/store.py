"""Layers that are unpacked, and images made of them, for all who run them on this machine.

::

    layers/<digest>/    one layer, by the digest of its archive (diff id): whole, or not there
        files/          the folder that overlayfs mounts
        beside          what the files cannot say of themselves (``records``)
        record.json     how large it is, and in which boot of the machine it was made
        given/          the registries that gave it, and as which blobs
        settled         the disk has it: it outlives a power loss
    merges/<chain>/     several layers made one, for who cannot mount all of an image's
    images/<digest>     an image, by the digest of its config: that, and its layers
    names/<hash>        which image a reference meant when it was last asked for
    grants/<hash>       which manifests of which repositories gave an image whole
    drafts/  trash/     layers that come and go
    locks/              who makes or uses a layer or an image, or has a download

Several servers, and runs without one, share it: everything is behind locks that end with who has
them. A run holds its image, a pull each of its layers until the image is there; what nobody holds
and no image has may go.

That a layer is here is nobody's right to have it. A pull is given it where the registry that it
came from says that this caller may have the blob, or where it has brought the same content itself.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from neuro.engines.images import locks
from neuro.engines.images.faults import corrupt
from neuro.engines.images.limits import Limits, check_files, no_room, spare_of
from neuro.engines.images.locks import Lock
from neuro.engines.images.processes import LayerProcess, turn
from neuro.engines.images.settling import SETTLED, settle
from neuro.engines.images.shelves import (
    GrantRecord,
    LayerRecord,
    NameRecord,
    Shelves,
    StoredImage,
    chain_of,
    grant_of,
    hexadecimal,
    read_small,
    write_small,
)
from neuro.engines.images.stacks import Layer, misshown
from neuro.engines.images.stopping import Stop
from neuro.engines.images.sweeping import Sweeper
from neuro.engines.images.unpacking import Unpacking

_REMEMBERED = 1000  # images of which it is known how many layers have to be merged


@dataclass(frozen=True)
class Origin:
    """Where a pull has a layer from: a registry's host, a repository of it, and a blob's digest.

    ``may`` asks the registry whether this caller may have the blob.
    """

    host: str
    source: str
    blob: str
    may: Callable[[], bool]


class HeldLayer:
    """A layer that stays until this is closed."""

    def __init__(self, layer: Layer, lock: Lock) -> None:
        self.layer = layer
        self._lock = lock

    def close(self) -> None:
        self._lock.close()


class HeldImage:
    """An image that stays until this is closed, and so does each of its layers.

    ``layers`` begin with the lowest. ``grant`` names what it was had by; "": that is not known.
    """

    def __init__(
        self, image: StoredImage, layers: Sequence[Layer], lock: Lock, grant: str = ""
    ) -> None:
        self.image = image
        self.grant = grant
        self.layers = tuple(layers)
        self._lock = lock

    def close(self) -> None:
        self._lock.close()


class Store:
    """The store in a folder, which is one user's; ``boot`` names this boot of the machine."""

    def __init__(self, folder: str, limits: Limits | None = None, boot: str = "") -> None:
        self.shelves = Shelves(folder)
        self._limits = limits or Limits()
        self._boot = boot or _boot()
        self._misshown: dict[str, int] = {}

    def open(self) -> None:
        """Make what is missing of the folder. Raises OSError."""
        self.shelves.make()

    # Layers

    def layer(
        self,
        diff_id: str,
        fetch: Callable[[], int],
        began: Callable[[Unpacking], None] = lambda unpacking: None,
        *,
        origin: Origin | None = None,
        stop: Stop | None = None,
        waiting: Callable[[], None] = lambda: None,
    ) -> HeldLayer:
        """A layer, made of the blob that ``fetch`` opens if it is not here.

        Others who want it from the same repository wait meanwhile, and call ``waiting``
        now and then; those who want it from elsewhere do not. With an ``origin`` it is fetched too
        where the caller has not shown that it may have what is here. ``began`` gets the
        unpacking as it begins. Raises ImageFault, Stopped and OSError, and what ``fetch`` raises.
        """
        stop = stop or Stop()
        with contextlib.ExitStack() as stack:
            lock = locks.shared(self.shelves.layer_lock(diff_id))
            stack.callback(lock.close)
            layer = self._granted(diff_id, origin)
            if layer is None:
                fetching = self.shelves.fetch_lock(origin.source if origin else "", diff_id)
                with locks.alone_unless(fetching, stop, waiting):
                    layer = self._granted(diff_id, origin)
                    if layer is None:
                        layer = self._bring(diff_id, fetch, began, origin, stop)
            stack.pop_all()
            return HeldLayer(layer, lock)

    def _granted(self, diff_id: str, origin: Origin | None) -> Layer | None:
        """The layer, if it is here and this caller may have it."""
        layer = self._layer(diff_id)
        if layer is None or origin is None:
            return layer
        given = self.shelves.given(diff_id, origin.host, origin.blob)
        return layer if os.path.exists(given) and origin.may() else None

    def _bring(
        self,
        diff_id: str,
        fetch: Callable[[], int],
        began: Callable[[Unpacking], None],
        origin: Origin | None,
        stop: Stop,
    ) -> Layer:
        blob = fetch()
        try:
            with locks.alone_unless(self.shelves.draft_lock(diff_id), stop, lambda: None):
                layer = self._layer(diff_id)
                if layer is None or (origin is not None and not self._came_as(diff_id, origin)):
                    with turn(stop):
                        layer = self._make(diff_id, blob, began, stop, layer)
                if origin is not None:
                    given = self.shelves.given(diff_id, origin.host, origin.blob)
                    os.makedirs(os.path.dirname(given), mode=0o700, exist_ok=True)
                    open(given, "w").close()
        finally:
            os.close(blob)
        return layer

    def _came_as(self, diff_id: str, origin: Origin) -> bool:
        """Whether the layer was once made of the same blob, whoever gave it."""
        try:
            known = os.listdir(f"{self.shelves.layer(diff_id)}/given")
        except FileNotFoundError:
            return False
        return any(one.startswith(f"{hexadecimal(origin.blob)}-") for one in known)

    def check_room(self, wanted: int) -> None:
        """Raises ImageFault where ``wanted`` bytes more do not fit on the disk."""
        disk = os.statvfs(self.shelves.folder)
        check_files(disk)
        free = disk.f_bavail * disk.f_frsize - self._spare()
        if free < wanted:
            raise no_room(free, wanted)

    def _spare(self) -> int:
        return max(self._limits.spare, spare_of(os.statvfs(self.shelves.folder)))

    def _layer(self, diff_id: str) -> Layer | None:
        place = self.shelves.layer(diff_id)
        record = self._record(place)
        if record is None:
            return None
        return _layer_at(diff_id, place, record)

    def has(self, diff_id: str) -> bool:
        """Whether a layer is here, for whoever may have it."""
        return self._layer(diff_id) is not None

    def _record(self, place: str) -> LayerRecord | None:
        """Of a layer, or of merged ones, if it is here."""
        record = read_small(f"{place}/record.json", LayerRecord)
        if record is None:
            return None
        if record.boot != self._boot and not os.path.exists(f"{place}/{SETTLED}"):
            return None  # the machine went down before the disk had it, perhaps
        return record

    def folders(self, image: HeldImage, most: int, stop: Stop | None = None) -> list[str]:
        """Folders to mount for an image, the lowest first, and not more than so many (1 or more).

        Where it has more layers, the lowest are merged, once for all who need that. So are those
        of which a mount would not show the folders as they are (``stacks``). Raises OSError, and
        Stopped.
        """
        files = [layer.files for layer in image.layers]
        count = max(len(files) - most + 1, self._count_misshown(image))
        if count < 2:
            return files
        merged = self._merged([one.diff_id for one in image.layers[:count]], stop or Stop())
        return [merged, *files[count:]]

    def _count_misshown(self, image: HeldImage) -> int:
        """``misshown``, which the layers alone decide: so once is enough."""
        chain = chain_of([layer.diff_id for layer in image.layers])
        if chain not in self._misshown:
            if len(self._misshown) >= _REMEMBERED:
                self._misshown.clear()
            self._misshown[chain] = misshown(image.layers)
        return self._misshown[chain]

    def _merged(self, diff_ids: Sequence[str], stop: Stop) -> str:
        chain = chain_of(diff_ids)
        place, draft = self.shelves.merge(chain), self.shelves.draft(chain)
        with locks.alone_unless(self.shelves.draft_lock(chain), stop, lambda: None):
            if self._record(place) is None:
                self.shelves.throw_away(place)
                self.shelves.throw_away(draft)
                try:
                    _make_folder(draft)
                    layers = [f"layers/{hexadecimal(one)}" for one in diff_ids]
                    target = f"drafts/{chain}/files"
                    arguments = (self.shelves.folder, target, json.dumps(layers))
                    with turn(stop):
                        merger = LayerProcess("merger", (), *arguments)
                        with stop.telling(merger.stop):
                            merger.wait()
                    write_small(f"{draft}/record.json", LayerRecord(0, 0, self._boot))
                    os.rename(draft, place)
                except BaseException:
                    self.shelves.throw_away(draft)
                    raise
        return f"{place}/files"

    def _make(
        self,
        diff_id: str,
        blob: int,
        began: Callable[[Unpacking], None],
        stop: Stop,
        present: Layer | None,
    ) -> Layer:
        """Unpack a layer in a draft, and put it in its place. The draft's lock is ours alone.

        Where the layer is ``present``, it is only seen that the blob has the same content.
        """
        place, draft = self.shelves.layer(diff_id), self.shelves.draft(diff_id)
        if present is None:
            self.shelves.throw_away(place)
        self.shelves.throw_away(draft)
        limits = replace(self._limits, spare=self._spare())
        try:
            _make_folder(draft)
            unpacking = Unpacking(blob, f"{draft}/files", f"{draft}/beside", limits)
            with stop.telling(unpacking.stop):
                began(unpacking)
                made = unpacking.wait()
            if made.digest != diff_id:
                raise corrupt("A layer unpacks to something else than the image's config says.")
            if present is not None:
                self.shelves.throw_away(draft)
                return present
            record = LayerRecord(made.size, made.entries, self._boot, made.implied)
            write_small(f"{draft}/record.json", record)
            os.rename(draft, place)
        except BaseException:
            self.shelves.throw_away(draft)
            raise
        return _layer_at(diff_id, place, record)

    def settle(self) -> None:
        """Let the disk have all layers that are here, so that they outlive a power loss."""
        unsettled = [place for place in self._places() if self._unsettled(place)]
        if not unsettled:
            return
        settle(self.shelves.folder, unsettled)

    def _places(self) -> Iterator[str]:
        for shelf in ("layers", "merges"):
            for name in self.shelves.listed(shelf):
                yield f"{self.shelves.folder}/{shelf}/{name}"

    def _unsettled(self, place: str) -> bool:
        record = read_small(f"{place}/record.json", LayerRecord)
        is_new = record is not None and record.boot == self._boot
        return is_new and not os.path.exists(f"{place}/{SETTLED}")

    # Images

    def keep(
        self, reference: str | None, digest: str, image: StoredImage, grant: str = ""
    ) -> HeldImage | None:
        """Keep an image, under a reference if there is one, while all of its layers are held.

        ``digest`` is that of the manifest. None where layers are not here.
        """
        # Shared: runs may hold it for days, and whoever else writes it writes the same.
        with locks.shared(self.shelves.image_lock(image.identity)):
            write_small(self.shelves.image(image.identity), image)
        if reference is not None:
            self.remember(reference, digest, image.identity, grant)
        return self.image(image.identity, grant)

    def grant(self, source: str, digest: str, identity: str, manifest: bytes) -> None:
        """Keep in mind that a repository gave this image whole, by this ``manifest``."""
        path = self.shelves.grant(grant_of(source, digest))
        write_small(path, GrantRecord(source, identity, digest, manifest))

    def granted(self, name: str) -> GrantRecord | None:
        """What ``grant`` kept in mind; None also for what earlier versions kept, with no manifest.

        Who has the manifest from there may have the image that is here.
        """
        found = read_small(self.shelves.grant(name), GrantRecord) if name else None
        return found if found is not None and found.manifest else None

    def remember(self, reference: str, digest: str, identity: str, grant: str = "") -> None:
        """Which image a reference means, by the manifest with this digest."""
        write_small(self.shelves.name(reference), NameRecord(reference, identity, digest, grant))

    def image(self, identity: str, grant: str = "") -> HeldImage | None:
        """An image, if it is here with all of its layers."""
        lock = locks.shared(self.shelves.image_lock(identity))
        try:
            path = self.shelves.image(identity)
            image = read_small(path, StoredImage)
            layers = [self._layer(one) for one in image.config.diff_ids] if image else []
            present = [layer for layer in layers if layer is not None]
            if image is None or len(present) < len(layers):
                lock.close()
                return None
            os.utime(path)  # it was used now
            return HeldImage(image, present, lock, grant)
        except BaseException:
            lock.close()
            raise

    def known(self, identity: str) -> StoredImage | None:
        """What is known of an image that somebody holds now."""
        return read_small(self.shelves.image(identity), StoredImage)

    def named(self, reference: str) -> NameRecord | None:
        """The image and the manifest that a reference meant last."""
        return read_small(self.shelves.name(reference), NameRecord)

    def sweep(self, *, unused_for: float, most: int, now: float | None = None) -> int:
        """See ``Sweeper.sweep``."""
        return Sweeper(self.shelves).sweep(unused_for=unused_for, most=most, now=now)


def _layer_at(diff_id: str, place: str, record: LayerRecord) -> Layer:
    return Layer(diff_id, f"{place}/files", f"{place}/beside", record.size, record.implied)


def _make_folder(draft: str) -> None:
    os.mkdir(draft, 0o700)
    os.mkdir(f"{draft}/files")
    os.chmod(f"{draft}/files", 0o755)  # noqa: S103 - a root folder's, whatever the umask


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
