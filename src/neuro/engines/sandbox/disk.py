"""Keeps the private files of one run below a size, where the file system's quotas do not.

Counting files takes long where there are many, so it is done seldom. Before a run can exceed its
limit, the use of its file system must have grown by what was left to the run at the last count:
asking for that costs one call. Only where it has grown so much, or after a minute in which anything
changed (others may have freed what this run took), the files are counted: in slices, so that the
supervisor's loop is never held up. Kills too late rather than never.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.removal import Descent

_BLOCK = 512  # bytes, the unit of st_blocks
_FASTEST = 2 << 30  # bytes a second that a disk may take
_SOONEST, _LATEST = 1.0, 10.0  # seconds between two looks at the file system's use
_SELDOM = 60.0  # seconds until files are counted again where anything changed
_SLICE, _PAUSE = 0.02, 0.04  # seconds of counting, and between
_REST = 10  # times as long as a count took, until the next one
_CHECKED = 64  # files between two looks at the clock
_RESTARTS = 3  # of a count whose folders were moved under it
_BYTES_OF_ENTRY = 16 << 10  # as ext4 reckons when it is made
_FEWEST_ENTRIES = 200_000


@dataclass(frozen=True)
class Use:
    """What a tree, or a file system, holds: ``bytes`` on disk, ``entries`` of any kind."""

    bytes: int = 0
    entries: int = 0


NOTHING = Use()
EVERYTHING = Use(1 << 62, 1 << 62)  # more than there is anywhere


@dataclass(frozen=True)
class Count:
    """The last count: the run's own ``use``, and the file system's when it began.

    ``at`` is when it ended and ``took`` how long it worked, in seconds of ``time.monotonic``.
    """

    use: Use
    whole: Use
    at: float
    took: float = 0.0


def entries_for(limit: int) -> int:
    """How many files and folders a run may have that may have ``limit`` bytes."""
    return max(_FEWEST_ENTRIES, limit // _BYTES_OF_ENTRY)


def is_due(last: Count, whole: Use, now: float, limit: Use) -> bool:
    """Whether the files must be counted: the run may have exceeded ``limit`` by now.

    ``whole`` is the file system's use.

    >>> last = Count(Use(40, 1), Use(1000, 10), at=0.0)
    >>> is_due(last, Use(1059, 10), 5.0, Use(100, 9)), is_due(last, Use(1060, 10), 5.0, Use(100, 9))
    (False, True)
    """
    if now - last.at < max(_SOONEST, last.took * _REST):
        return False
    if now - last.at >= _SELDOM and whole != last.whole:
        return True
    return (
        whole.bytes - last.whole.bytes >= limit.bytes - last.use.bytes
        or whole.entries - last.whole.entries >= limit.entries - last.use.entries
    )


def pause_after(last: Count, whole: Use, limit: Use) -> float:
    """Seconds until the file system's use is looked at again: no disk fills what is left faster."""
    left = limit.bytes - last.use.bytes - max(0, whole.bytes - last.whole.bytes)
    return min(_LATEST, max(_SOONEST, left / _FASTEST))


def excess_of(use: Use, limit: Use) -> str | None:
    """The sentence to the job's owner, if ``use`` is more than ``limit``."""
    if use.bytes > limit.bytes:
        return (
            f"the job's private files took {size_in_words(use.bytes)} of the"
            f" {size_in_words(limit.bytes)} that it may use: write data to a volume, or choose a"
            " preset with more disk"
        )
    if use.entries > limit.entries:
        return (
            f"the job made {use.entries} private files and folders, more than the {limit.entries}"
            " that it may have: write data to a volume, or choose a preset with more disk"
        )
    return None


def size_in_words(count: int) -> str:
    """Bytes as settings write them.

    >>> size_in_words(10 << 30), size_in_words(1 << 20), size_in_words(1536 << 20)
    ('10G', '1M', '1.5G')
    """
    for unit, size in (("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20)):
        if count >= size:
            return f"{count / size:.1f}".removesuffix(".0") + unit
    return f"{count / 1024:.0f}K"


def use_of_disk(folder: str) -> Use:
    """What the file system of ``folder`` holds. Raises OSError."""
    info = os.statvfs(folder)
    return Use((info.f_blocks - info.f_bfree) * info.f_frsize, info.f_files - info.f_ffree)


class DiskWatch:
    """Keeps ``folder`` below ``limit`` bytes and ``inodes`` entries.

    ``on_excess`` is called once, with a sentence for the job's owner. ``processes`` are the run's:
    files that they hold open count also where their names are deleted.
    """

    def __init__(
        self,
        loop: Loop,
        folder: str,
        *,
        limit: int,
        inodes: int,
        on_excess: Callable[[str], None],
        processes: Callable[[], Iterable[int]] = tuple,
        there: Use = NOTHING,
    ) -> None:
        """The limits are on what is added to that which is ``there`` now."""
        self._loop = loop
        self._folder = folder
        self._limit = Use(there.bytes + limit, there.entries + inodes)
        self._on_excess = on_excess
        self._processes = processes
        self._ended = False
        # A new run has nothing yet, but for a few files of ours.
        self._last = Count(there, self._whole(), time.monotonic())
        self._loop.after(pause_after(self._last, self._last.whole, self._limit), self._look)

    def end(self) -> None:
        """Look no more."""
        self._ended = True

    def _whole(self) -> Use:
        try:
            return use_of_disk(self._folder)
        except OSError:  # the folder is gone: so is what was counted
            return Use()

    def _look(self) -> None:
        if self._ended:
            return
        whole = self._whole()
        if is_due(self._last, whole, time.monotonic(), self._limit):
            self._step(Census(self._folder, self._limit, self._processes), whole)
        else:
            self._loop.after(pause_after(self._last, whole, self._limit), self._look)

    def _step(self, census: Census, whole: Use) -> None:
        if self._ended:
            census.close()
            return
        if not census.step(_SLICE):
            self._loop.after(_PAUSE, lambda: self._step(census, whole))
            return
        sentence = excess_of(census.use, self._limit)
        if sentence is not None:
            self._ended = True
            self._on_excess(sentence)
            return
        self._last = Count(census.use, whole, time.monotonic(), census.worked)
        self._loop.after(pause_after(self._last, whole, self._limit), self._look)


class FirstCount:
    """Counts what is in ``folder``, and tells it to ``then`` unless it was ended before."""

    def __init__(self, loop: Loop, folder: str, then: Callable[[Use], None]) -> None:
        self._loop = loop
        self._census = Census(folder, EVERYTHING)
        self._then = then
        self._ended = False
        self._loop.after(0.0, self._step)

    def end(self) -> None:
        """Count no more."""
        self._ended = True

    def _step(self) -> None:
        if self._ended:
            self._census.close()
        elif self._census.step(_SLICE):
            self._then(self._census.use)
        else:
            self._loop.after(_PAUSE, self._step)


class Census:
    """Counts what is below a folder, in steps; it is over early once ``limit`` is exceeded.

    The run goes on meanwhile, so the count is of no one moment. Where it moves a folder that is
    being counted, the count begins anew, and at last what was seen is believed: it is not more than
    there is. Nothing is changed: what is closed to us is not counted.
    """

    def __init__(
        self, folder: str, limit: Use, processes: Callable[[], Iterable[int]] = tuple
    ) -> None:
        self.worked = 0.0
        self._processes = processes
        self._folder = folder
        self._limit = limit
        self._restarts = 0
        self._begin()

    def _begin(self) -> None:
        self._bytes = 0.0
        self._entries = 0
        self._walk = self._counted()

    @property
    def use(self) -> Use:
        """What was counted so far."""
        return Use(int(self._bytes), self._entries)

    def step(self, seconds: float) -> bool:
        """Count for so long; whether that is all."""
        began = time.monotonic()
        try:
            for _ in self._walk:
                if excess_of(self.use, self._limit) is not None:
                    self.close()
                    return True
                if time.monotonic() - began >= seconds:
                    return False
        except OSError:
            if self._restarts == _RESTARTS:
                return True
            self._restarts += 1
            self._begin()
            return False
        finally:
            self.worked += time.monotonic() - began
        return True

    def close(self) -> None:
        """Give up the rest."""
        self._walk.close()

    def _counted(self) -> Generator[None]:
        yield from self._walked()
        seen: set[tuple[int, int]] = set()
        for pid in self._processes():
            for device, number, blocks in _unlinked(pid):
                if (device, number) not in seen:
                    seen.add((device, number))
                    self._entries += 1
                    self._bytes += blocks * _BLOCK
            yield

    def _walked(self) -> Generator[None]:
        """Count; stops at every few files. Raises OSError where a folder was moved meanwhile."""
        above, name = os.path.split(self._folder)
        try:
            fd = os.open(above or ".", os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            descent = Descent(fd, name, opening_up=False)
        except FileNotFoundError:
            return
        finally:
            os.close(fd)
        try:
            pending: list[list[str]] = []
            while True:
                names: list[str] = []
                yield from self._read(descent.fd, names)
                pending.append(names)
                while not self._entered(descent, pending[-1]):
                    pending.pop()
                    if not pending:
                        return
                    descent.leave()
        finally:
            descent.close()

    def _entered(self, descent: Descent, names: list[str]) -> bool:
        while names:
            try:
                descent.enter(names.pop())
                return True
            except OSError:
                continue  # it is gone, closed to us, or a mount
        return False

    def _read(self, folder: int, names: list[str]) -> Generator[None]:
        """Count what is in one folder; its folders are added to ``names``."""
        with os.scandir(folder) as scan:
            for number, entry in enumerate(scan):
                try:
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                except OSError:
                    continue  # it is gone
                self._entries += 1
                # A file of several names is met several times.
                links = 1 if entry.is_dir(follow_symlinks=False) else status.st_nlink or 1
                self._bytes += status.st_blocks * _BLOCK / links
                if number % _CHECKED == 0:
                    yield
        yield


def _unlinked(pid: int) -> Iterator[tuple[int, int, int]]:
    """Device, number and blocks of files on overlays that a process holds, and nobody a name.

    They take space that no walk finds. Files on volumes, and in memory, are not on an overlay.
    What is on its way through a socket is in no process, so it is not found.
    """
    overlays: tuple[set[bytes], set[tuple[int, int]]] | None = None
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
        mapped = list(_mapped(pid))
    except OSError:
        return  # it is gone, or another user's
    for fd in descriptors:
        try:
            status = os.stat(f"/proc/{pid}/fd/{fd}")
            if status.st_nlink or not stat.S_ISREG(status.st_mode):
                continue
            overlays = overlays or _overlays(pid)
            if _mount_of(pid, fd) in overlays[0]:
                yield status.st_dev, status.st_ino, status.st_blocks
        except OSError:
            continue  # it is closed
    for device, place in mapped:
        try:
            overlays = overlays or _overlays(pid)
            if device not in overlays[1]:
                continue
            status = os.stat(f"/proc/{pid}/map_files/{place}")
        except OSError:
            continue  # it is gone, or we are a plain user
        if not status.st_nlink:
            yield status.st_dev, status.st_ino, status.st_blocks


def _overlays(pid: int) -> tuple[set[bytes], set[tuple[int, int]]]:
    """The ids of the overlays among a process's mounts, and their devices."""
    mounts, devices = set(), set()
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        for line in file:
            if b" - overlay " in line:
                number, _, device, _ = line.split(b" ", 3)
                major, _, minor = device.partition(b":")
                mounts.add(number)
                devices.add((int(major), int(minor)))
    return mounts, devices


def _mapped(pid: int) -> Iterator[tuple[tuple[int, int], str]]:
    """The devices of deleted files that a process has mapped, and their names in its map_files."""
    seen: set[tuple[bytes, bytes]] = set()
    with open(f"/proc/{pid}/maps", "rb") as file:
        for line in file:
            if not line.endswith(b" (deleted)\n"):
                continue
            place, _, _, device, number, _ = line.split(None, 5)
            if (device, number) not in seen:
                seen.add((device, number))
                major, _, minor = device.partition(b":")
                yield (int(major, 16), int(minor, 16)), place.decode()


def _mount_of(pid: int, fd: str) -> bytes:
    with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
        return next((line.split()[1] for line in file if line.startswith(b"mnt_id:")), b"")
