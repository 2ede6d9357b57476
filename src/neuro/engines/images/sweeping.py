"""What goes from a store: images that nobody uses, and layers that no image has."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator

from neuro.engines.images import locks
from neuro.engines.images.shelves import (
    LayerRecord,
    NameRecord,
    Shelves,
    StoredImage,
    chain_of,
    hexadecimal,
    read_small,
    remove,
)

_STALE = 3600.0  # seconds after which nobody goes on with what is half-written


class Sweeper:
    """Sweeps a store, beside others who use and sweep it."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves

    def sweep(self, *, unused_for: float, most: int, now: float | None = None) -> int:
        """Remove images that nobody has used for so many seconds, and the oldest beyond ``most``.

        ``most`` is of the layers that nobody uses now, together, in bytes. Layers that no image has
        go, unless a pull holds them. Returns how many layers went. Raises OSError.
        """
        moment = time.time() if now is None else now
        images = self._images()
        for used, identity in sorted(images):
            if moment - used > unused_for:
                self._remove_image(identity)
        gone = self._remove_layers()
        in_use = {identity for _, identity in images if self._is_in_use(identity)}
        for _, identity in sorted(images):
            if self._size(in_use) <= most:
                break
            if self._remove_image(identity):
                gone += self._remove_layers()
        self._remove_merges()
        self._forget_names(moment)
        self._forget_downloads(moment)
        self._empty()
        return gone

    def _images(self) -> list[tuple[float, str]]:
        """When each image was used last, and which it is."""
        found = []
        for path, status in self._files("images"):
            image = read_small(path, StoredImage)
            if image is not None:
                found.append((status.st_mtime, image.identity))
        return found

    def _remove_image(self, identity: str) -> bool:
        """Whether it went: nobody uses it."""
        path = self._shelves.image(identity)
        lock = locks.alone_at_once(self._shelves.image_lock(identity))
        if lock is None:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)  # it is being used
            return False
        with lock, contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return True

    def _remove_layers(self) -> int:
        """Take layers away that no image has and nobody holds.

        Between both looks at the images lie the locks: an image that comes later needs one of them.
        """
        gone = 0
        unneeded = set(self._shelves.listed("layers")) - self._needed()
        with contextlib.ExitStack() as stack:
            locked = set()
            for name in unneeded:
                lock = locks.alone_at_once(self._shelves.layer_lock(name))
                if lock is not None:
                    stack.enter_context(lock)
                    locked.add(name)
            for name in locked - self._needed():
                gone += self._shelves.take_away(self._shelves.layer(name)) is not None
        return gone

    def _remove_merges(self) -> None:
        """Take folders of merged layers away that no image can have."""
        for chain in self._shelves.listed("merges"):
            lock = locks.alone_at_once(self._shelves.draft_lock(chain))
            if lock is not None:
                with lock:  # who wants it has an image, and waits for the lock
                    if not any(chain in _chains(one) for one in self._stacks()):
                        self._shelves.take_away(self._shelves.merge(chain))

    def _is_in_use(self, identity: str) -> bool:
        lock = locks.alone_at_once(self._shelves.image_lock(identity))
        if lock is not None:
            lock.close()
        return lock is None

    def _stacks(self, only: Collection[str] | None = None) -> Iterator[tuple[str, ...]]:
        """The layers of each image, or of ``only`` these."""
        for path, _ in self._files("images"):
            image = read_small(path, StoredImage)
            if image is not None and (only is None or image.identity in only):
                yield image.config.diff_ids

    def _needed(self, by: Collection[str] | None = None) -> set[str]:
        return {hexadecimal(one) for diff_ids in self._stacks(by) for one in diff_ids}

    def _size(self, in_use: Collection[str]) -> int:
        """Of all layers but those of images that are in use."""
        records = (
            read_small(f"{self._shelves.layer(name)}/record.json", LayerRecord)
            for name in set(self._shelves.listed("layers")) - self._needed(in_use)
        )
        return sum(record.size for record in records if record is not None)

    def _forget_names(self, now: float) -> None:
        for shelf in ("names", "grants", "images"):
            for path, status in self._files(shelf):
                if "." in path.rpartition("/")[2]:  # it is being written, or was by who was killed
                    stale = now - status.st_mtime > _STALE
                else:
                    name = read_small(path, NameRecord) if shelf != "images" else None
                    stale = name is not None and not os.path.exists(
                        self._shelves.image(name.identity)
                    )
                if stale:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)

    def _forget_downloads(self, now: float) -> None:
        """Those that nobody went on with."""
        for path, status in self._files("downloads"):
            if now - status.st_mtime > _STALE:
                name = path.rpartition("/")[2]
                lock = locks.alone_at_once(f"{self._shelves.folder}/locks/download-{name}")
                if lock is not None:
                    with lock, contextlib.suppress(FileNotFoundError):
                        os.unlink(path)

    def _files(self, shelf: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(f"{self._shelves.folder}/{shelf}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # it goes while we look
                    yield entry.path, entry.stat()

    def _empty(self) -> None:
        """Remove what was taken away, drafts that nobody makes, and locks of what is not there."""
        for name in self._shelves.listed("locks"):
            what, _, digest = name.partition("-")
            lock = locks.alone_at_once(f"{self._shelves.folder}/locks/{name}")
            if lock is not None:
                with lock:
                    if what == "draft":
                        self._shelves.take_away(self._shelves.draft(digest))
                    if not os.path.exists(f"{self._shelves.folder}/{what}s/{digest}"):
                        lock.remove()
        for name in self._shelves.listed("trash"):
            remove(f"{self._shelves.folder}/trash/{name}")


def _chains(diff_ids: tuple[str, ...]) -> Iterator[str]:
    return (chain_of(diff_ids[:count]) for count in range(2, len(diff_ids) + 1))
