"""What builds of one owner leave for the next: layers by what they were made of, and more.

::

    images/         the store of base images (``engines/images/store``)
    layers/<id>/    a step's layer, whole or not there
        files/      the folder that overlays mount
        beside      what the files cannot say of themselves (``engines/images/records``)
        record.json when it was made, how large it is, and in which boot of the machine
        packed.json what it is as an archive, once somebody pushed it
        settled     the disk has it: it outlives a power loss
    fresh/<id>      a layer that the disk may not have yet
    keys/<key>      which layer a key means
    mounts/<name>/  folders of RUN --mount=type=cache
    bases/<name>    what a base image's reference meant last
    downloads/      files of ADD, by their URLs
    drafts/ trash/  layers that come and go
    swept           when a build tidied all this last: the file's own time
    locks/          who makes or uses something; they end with who has them

Several builds at once share it, and any of them may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from neuro.builder import downloads
from neuro.builder.views import LayerFolder
from neuro.engines.images import locks
from neuro.engines.images.locks import Lock
from neuro.engines.images.settling import SETTLED, settle
from neuro.engines.images.shelves import read_small, remove

_SWEPT = "swept"
_FOLDERS = ("layers", "keys", "mounts", "bases", "downloads", "drafts", "trash", "locks")
_UNUSED = 30 * 86400.0  # seconds after which a layer goes that no build has used
_SWEPT_FOR = 600.0  # seconds for which one sweep will do
_MUCH = 1 << 30  # bytes that a build adds and sweeps after, whenever that was done last
_T = TypeVar("_T", bound=msgspec.Struct)


class LayerRecord(msgspec.Struct, frozen=True):
    """``created`` is seconds since 1970; ``size`` is bytes of the files in it."""

    created: float
    size: int
    files: int
    boot: str


class Packed(msgspec.Struct, frozen=True):
    """A layer as a registry has it."""

    media_type: str
    digest: str
    size: int
    diff_id: str


class _Key(msgspec.Struct, frozen=True):
    layer: str


class _Thing(NamedTuple):
    """What may be removed: when it was used last, its bytes, and its name for ``remove``."""

    used: float
    size: int
    name: str
    remove: Callable[[str], bool]


class HeldLayer:
    """A layer that stays until this is closed."""

    def __init__(self, identity: str, place: str, record: LayerRecord, lock: Lock) -> None:
        self.identity = identity
        self.created = record.created
        self.size = record.size
        self.folder = LayerFolder(f"{place}/files", f"{place}/beside")
        self._place = place
        self._lock = lock

    def packed(self) -> Packed | None:
        """What it is as an archive, if that is known."""
        return read_small(f"{self._place}/packed.json", Packed)

    def remember(self, packed: Packed) -> None:
        """Note what it is as an archive."""
        write_small(f"{self._place}/packed.json", packed)

    def close(self) -> None:
        self._lock.close()


class Draft(msgspec.Struct, frozen=True):
    """A layer that is being made: ``files`` is its folder, ``work`` an empty one beside it."""

    place: str

    @property
    def files(self) -> str:
        return f"{self.place}/files"

    @property
    def beside(self) -> str:
        return f"{self.place}/beside"

    @property
    def work(self) -> str:
        return f"{self.place}/work"


class Cache:
    """The cache in a folder. ``boot`` names this boot of the machine."""

    def __init__(self, folder: str, boot: str = "") -> None:
        self.folder = folder
        self._boot = boot or _boot()

    def open(self) -> None:
        """Make what is missing. Raises OSError."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for name in _FOLDERS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.folder}/{name}", 0o700)
        if not os.path.exists(f"{self.folder}/fresh"):
            self._list_fresh()

    def _list_fresh(self) -> None:
        """Begin the list of fresh layers, for a cache of before there was one. Raises OSError."""
        with self.scratch() as draft:
            for name in os.listdir(f"{self.folder}/layers"):
                if not os.path.exists(f"{self.folder}/layers/{name}/{SETTLED}"):
                    _touch(f"{draft}/{name}")
            try:
                os.rename(draft, f"{self.folder}/fresh")
            except OSError:
                if not os.path.exists(f"{self.folder}/fresh"):
                    raise
                # Another build was faster, and has listed a layer there already.

    # Layers

    def find(self, key: str) -> HeldLayer | None:
        """The layer that a key means, if it is here. Raises OSError."""
        known = read_small(f"{self.folder}/keys/{key}", _Key)
        return self._hold(known.layer) if known is not None else None

    def alias(self, key: str, layer: HeldLayer) -> None:
        """Let a key mean a layer. Raises OSError."""
        write_small(f"{self.folder}/keys/{key}", _Key(layer.identity))

    def make(
        self, key: str, fill: Callable[[Draft], None], *, anew: bool = False
    ) -> tuple[HeldLayer, bool]:
        """The layer of a key, made by ``fill`` where it is not here; whether it was made.

        Others who want it wait meanwhile. Raises OSError, and what ``fill`` raises.
        """
        with locks.alone(f"{self.folder}/locks/key-{key}"):
            found = None if anew else self.find(key)
            if found is not None:
                return found, False
            identity = os.urandom(16).hex()
            lock = locks.shared(self._lock(identity))
            try:
                place = self._fill(identity, fill)
                record = read_small(f"{place}/record.json", LayerRecord)
                assert record is not None
                held = HeldLayer(identity, place, record, lock)
                self.alias(key, held)
            except BaseException:
                lock.close()
                raise
            return held, True

    def _fill(self, identity: str, fill: Callable[[Draft], None]) -> str:
        place, draft = f"{self.folder}/layers/{identity}", f"{self.folder}/drafts/{identity}"
        os.mkdir(draft, 0o700)
        try:
            for name in ("files", "work"):
                os.mkdir(f"{draft}/{name}")
                os.chmod(f"{draft}/{name}", 0o755)  # noqa: S103 - a root folder's
            with open(f"{draft}/beside", "x", encoding="ascii"):
                pass
            fill(Draft(draft))
            self._throw_away(f"{draft}/work")
            size, files = _measured(f"{draft}/files")
            record = LayerRecord(time.time(), size, files, self._boot)
            write_small(f"{draft}/record.json", record)
            os.rename(draft, place)
            # Not before: whoever settles meanwhile would take it off the list.
            _touch(f"{self.folder}/fresh/{identity}")
        except BaseException:
            for left in (draft, place):
                self._throw_away(left)
            raise
        return place

    def _hold(self, identity: str) -> HeldLayer | None:
        lock = locks.shared(self._lock(identity))
        try:
            place = f"{self.folder}/layers/{identity}"
            record = read_small(f"{place}/record.json", LayerRecord)
            lost = record is not None and record.boot != self._boot
            if record is None or (lost and not os.path.exists(f"{place}/{SETTLED}")):
                lock.remove() if record is None else lock.close()
                return None
            os.utime(f"{place}/record.json")  # it was used now
            return HeldLayer(identity, place, record, lock)
        except BaseException:
            lock.close()
            raise

    def _lock(self, identity: str) -> str:
        return f"{self.folder}/locks/layer-{identity}"

    # Other things

    @contextlib.contextmanager
    def mount(self, name: str, sharing: str) -> Iterator[tuple[str, bool]]:
        """The folder of a cache mount, and whether it is new. Raises OSError.

        ``locked``: others wait until it is given back. ``private``: who comes meanwhile gets
        another one. ``shared``: all have it at once.
        """
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        number = 0
        while True:
            path = f"{self.folder}/locks/mount-{key}-{number}"
            if sharing == "private":
                lock = locks.alone_at_once(path)
                number += 1
                if lock is None:
                    continue
            else:
                lock = locks.alone(path) if sharing == "locked" else locks.shared(path)
            break
        with lock:
            place = f"{self.folder}/mounts/{path.rpartition('mount-')[2]}"
            is_new = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o755)
                is_new = True
            os.utime(place)
            yield f"{place}", is_new

    def known(self, shelf: str, name: str, kind: type[_T]) -> _T | None:
        """A small thing that was remembered."""
        return read_small(f"{self.folder}/{shelf}/{_hashed(name)}", kind)

    def remember(self, shelf: str, name: str, value: msgspec.Struct) -> None:
        """Keep a small thing. Raises OSError."""
        write_small(f"{self.folder}/{shelf}/{_hashed(name)}", value)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """An empty folder that goes afterwards. Raises OSError."""
        name = os.urandom(16).hex()
        with locks.shared(self._lock(name)) as lock:
            place = f"{self.folder}/drafts/{name}"
            os.mkdir(place, 0o700)
            try:
                yield place
            finally:
                self._throw_away(place)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._lock(name))
                lock.close()

    # What goes

    def settle(self) -> None:
        """Let the disk have all layers that are here. Raises OSError."""
        listed = os.listdir(f"{self.folder}/fresh")
        fresh = []
        for name in listed:
            place = f"{self.folder}/layers/{name}"
            record = read_small(f"{place}/record.json", LayerRecord)
            if record is not None and record.boot == self._boot:  # others are not to be believed
                fresh.append(place)
        if fresh:
            settle(self.folder, fresh)
        for name in listed:
            with contextlib.suppress(FileNotFoundError):  # another build settles, too
                os.unlink(f"{self.folder}/fresh/{name}")

    def is_to_be_swept(self, added: int, *, now: float | None = None) -> bool:
        """Whether a build that added so many bytes has to ``sweep``: it asks for each layer."""
        moment = time.time() if now is None else now
        try:
            ago = moment - os.stat(f"{self.folder}/{_SWEPT}").st_mtime
        except FileNotFoundError:
            return True
        # A clock that was set back must not put it off for long.
        return added > _MUCH or not 0 <= ago <= _SWEPT_FOR

    def sweep(self, most: int, *, now: float | None = None) -> int:
        """Remove layers and files of URLs that nobody uses: the oldest beyond ``most`` bytes.

        Returns how many went. Raises OSError.
        """
        moment = time.time() if now is None else now
        things = [_Thing(*layer, self._remove_layer) for layer in self._layers()]
        things += [_Thing(*file, self._remove_download) for file in downloads.listed(self.folder)]
        total = sum(thing.size for thing in things)
        gone = 0
        for thing in sorted(things, key=lambda one: one.used):
            if total <= most and moment - thing.used <= _UNUSED:
                continue
            if thing.remove(thing.name):
                total -= thing.size
                gone += 1
        self._remove_mounts(moment, max(0, most - total))
        self._forget(moment)
        self._empty()
        _touch(f"{self.folder}/{_SWEPT}")
        os.utime(f"{self.folder}/{_SWEPT}", (moment, moment))
        return gone

    def _layers(self) -> Iterator[tuple[float, int, str]]:
        for name in os.listdir(f"{self.folder}/layers"):
            path = f"{self.folder}/layers/{name}/record.json"
            record = read_small(path, LayerRecord)
            try:
                used = os.stat(path).st_mtime
            except FileNotFoundError:
                used = 0.0
            yield used, record.size if record else 0, name

    def _remove_layer(self, identity: str) -> bool:
        lock = locks.alone_at_once(self._lock(identity))
        if lock is None:
            return False
        with lock:
            self._throw_away(f"{self.folder}/layers/{identity}")
            lock.remove()
        return True

    def _remove_download(self, file: str) -> bool:
        return downloads.remove(self.folder, file)

    def _remove_mounts(self, now: float, room: int) -> None:
        """Folders of cache mounts: those that were not used for long, and the oldest beyond."""
        found = []
        for name in os.listdir(f"{self.folder}/mounts"):
            place = f"{self.folder}/mounts/{name}"
            with contextlib.suppress(FileNotFoundError):
                found.append((os.stat(place).st_mtime, place, name))
        total = 0
        for used, place, name in sorted(found, reverse=True):
            total += _measured(place)[0]
            if total <= room and now - used <= _UNUSED:
                continue
            lock = locks.alone_at_once(f"{self.folder}/locks/mount-{name}")
            if lock is not None:
                with lock:
                    self._throw_away(place)

    def _forget(self, now: float) -> None:
        """Small things that mean nothing any more."""
        downloads.forget(self.folder)
        for shelf in ("keys", "bases"):
            for name in os.listdir(f"{self.folder}/{shelf}"):
                path = f"{self.folder}/{shelf}/{name}"
                with contextlib.suppress(FileNotFoundError):
                    old = now - os.stat(path).st_mtime > _UNUSED
                    key = read_small(path, _Key) if shelf == "keys" else None
                    lost = key and not os.path.exists(f"{self.folder}/layers/{key.layer}")
                    if lost or (old and shelf != "keys"):
                        os.unlink(path)

    def _empty(self) -> None:
        """Drafts that nobody makes any more, what was taken away, and locks of nothing."""
        for name in os.listdir(f"{self.folder}/drafts"):
            lock = locks.alone_at_once(self._lock(name))
            if lock is not None:
                with lock:
                    self._throw_away(f"{self.folder}/drafts/{name}")
                    lock.remove()
        for name in os.listdir(f"{self.folder}/locks"):
            kind, _, identity = name.partition("-")
            shelf = {"layer": "layers", "mount": "mounts"}.get(kind)
            if shelf is None or not os.path.exists(f"{self.folder}/{shelf}/{identity}"):
                lock = locks.alone_at_once(f"{self.folder}/locks/{name}")
                if lock is not None:
                    lock.remove()
        for name in os.listdir(f"{self.folder}/trash"):
            remove(f"{self.folder}/trash/{name}")

    def _throw_away(self, path: str) -> None:
        trash = f"{self.folder}/trash/{os.urandom(8).hex()}"
        try:
            os.rename(path, trash)
        except FileNotFoundError:
            return
        remove(trash)


class Settling(threading.Thread):
    """Lets the disk have what earlier builds left, while this one goes on."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(name="settling", daemon=True)
        self._cache = cache

    def run(self) -> None:
        """See Cache.settle; where that fails, the next build tries again."""
        with contextlib.suppress(OSError):
            self._cache.settle()


def _measured(folder: str) -> tuple[int, int]:
    """Bytes and number of the files in a folder, each file once. Raises OSError."""
    size, count = 0, 0
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        size += status.st_size
    return size, count


def write_small(path: str, value: msgspec.Struct) -> None:
    """Put a small file in its place, whole or not at all, without waiting for the disk.

    What a power loss leaves of it is not read: layers of another boot count only once settled.
    """
    draft = f"{path}.{os.urandom(4).hex()}"
    with open(draft, "xb") as file:
        file.write(msgspec.json.encode(value))
    os.rename(draft, path)


def _touch(path: str) -> None:
    with open(path, "w", encoding="ascii"):
        pass


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
