"""What can be done to files in the storage, as plain blocking calls. No HTTP, no permissions.

Every call takes places (see ``confine``) and raises NotFound, StorageFault or InvalidInput. A last
component that is a link is followed by reads and never by rename and removal. What is neither a
file, a folder nor a link (pipes, devices, sockets) is listed, renamed and removed, never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuro.domain.errors import NotFound, StorageFault
from neuro.domain.permissions import Action
from neuro.domain.storage import DiskUsage, FileStatus, FileType, Removed
from neuro.server.storage.confine import Escape, Fence, Place, reopen
from neuro.server.storage.faults import fault_of, faults, faults_but_existing
from neuro.server.storage.ownership import adopt, inherit
from neuro.server.storage.paths import STAGING, UNREADABLE, readable
from neuro.server.storage.removal import remove_below

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_CREATE_TRIES = 16
LISTING_BATCH = 500
# Of one folder, in search of a name that is not UTF-8.
MAX_NAMES_SEARCHED = 20_000


class Tree:
    """See the module's docstring. Threads may share it."""

    def __init__(self, root: Path, *, use_openat2: bool | None = None) -> None:
        """The files are at ``root/<owner>/…``; the folder is made if it is missing."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.fence = Fence(self.root, use_openat2=use_openat2)

    def close(self) -> None:
        self.fence.close()

    def make_home(self, owner: str) -> None:
        """Make an owner's folder; nothing if it is there."""
        folder = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileExistsError):
                os.mkdir(owner, dir_fd=folder)
            adopt(folder, owner.encode())
        finally:
            os.close(folder)

    # Descriptors

    @contextmanager
    def opened(self, place: Place, flags: int) -> Iterator[int]:
        """A descriptor of what is there, closed at the end."""
        with faults(place.path):
            fd = self._open(place, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, place: Place, flags: int) -> int:
        if place.segments and place.segments[0].startswith("."):
            raise FileNotFoundError(errno.ENOENT, "the server's own", place.path)
        names = [segment.encode() for segment in place.segments]
        try:
            return self.fence.open(names, place.fence, flags)
        except FileNotFoundError:
            if not any(UNREADABLE in segment for segment in place.segments):
                raise
            return self.fence.open(self._names_on_disk(place), place.fence, flags)

    def _names_on_disk(self, place: Place) -> list[bytes]:
        """The bytes behind names that clients see with U+FFFD in them."""
        names: list[bytes] = []
        for depth, segment in enumerate(place.segments):
            name = segment.encode()
            if UNREADABLE in segment:
                folder = self.fence.open(names, min(place.fence, depth), _FOLDER)
                try:
                    name = name_on_disk(folder, segment)
                finally:
                    os.close(folder)
            names.append(name)
        return names

    def open_file(self, place: Place) -> tuple[int, os.stat_result]:
        """A descriptor for reading a regular file, and its status; the caller closes it."""
        with self.opened(place, os.O_PATH) as found, faults(place.path):
            status = os.fstat(found)
            _check_regular(status, place.path)
            return reopen(found, os.O_RDONLY), status

    def open_for_writing(self, place: Place, *, create: bool) -> int:
        """A descriptor for writing into a regular file; ``create`` makes it or empties it."""
        for _ in range(_CREATE_TRIES):
            try:
                with self.opened(place, os.O_PATH) as found, faults(place.path):
                    _check_regular(os.fstat(found), place.path)
                    return reopen(found, os.O_WRONLY | (os.O_TRUNC if create else 0))
            except NotFound:
                if not create:
                    raise
            # O_EXCL never opens a link or a pipe that appears in the meantime.
            with (
                suppress(FileExistsError),
                faults_but_existing(place.path),
                self.opened(place.parent, os.O_PATH | os.O_DIRECTORY) as folder,
            ):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                made = os.open(place.name.encode(), flags, 0o666, dir_fd=folder)
                try:
                    inherit(folder, made)
                except OSError:
                    os.close(made)
                    raise
                return made
        raise fault_of(Escape(errno.ELOOP, ""), place.path)

    # Looking

    def status(self, place: Place, permission: Action) -> FileStatus:
        """The status, links followed; a link that cannot be followed shows as a link."""
        try:
            with self.opened(place, os.O_PATH) as found:
                return _status(place.path, os.fstat(found), permission)
        except (NotFound, StorageFault) as error:
            if not place.segments:
                raise
            with self.opened(place.parent, os.O_PATH | os.O_DIRECTORY) as folder:
                link = _link_status(folder, place, permission)
            if link is None:
                raise error from None
            return link

    def entries(
        self, place: Place, permission: Action, known: dict[str, Action], only: bool
    ) -> Iterator[list[FileStatus]]:
        """The entries of a folder, in batches, in no order; links show as links.

        ``known`` has the names with a wider permission; with ``only`` nothing else is listed.
        """
        batch: list[FileStatus] = []
        with self.opened(place, os.O_RDONLY | os.O_DIRECTORY) as folder, os.scandir(folder) as scan:
            for entry in scan:
                name = readable(entry.name)
                if (only and name not in known) or _is_hidden(place, name):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    target = None
                    if stat.S_ISLNK(status.st_mode):
                        target = readable(os.readlink(entry.name, dir_fd=folder))
                    batch.append(_status(name, status, known.get(name, permission), target))
                if len(batch) >= LISTING_BATCH:
                    yield batch
                    batch = []
        yield batch

    def usage(self, place: Place) -> DiskUsage:
        """Of the file system that the place is on."""
        with self.opened(place, os.O_PATH) as found, faults(place.path):
            disk = os.fstatvfs(found)
        unit = disk.f_frsize
        return DiskUsage(
            total=disk.f_blocks * unit,
            used=(disk.f_blocks - disk.f_bfree) * unit,
            free=disk.f_bavail * unit,
        )

    # Changing

    def make_folders(self, place: Place) -> None:
        """Make a folder and those above it; a folder that is there is left as it is."""
        deepest = self._deepest_folder(place)
        if deepest:
            # It may be left over from a server that was killed: see ``adopt``.
            upper = _upper(place, deepest)
            with (
                self.opened(upper.parent, os.O_PATH | os.O_DIRECTORY) as folder,
                faults(upper.path),
            ):
                adopt(folder, name_on_disk(folder, upper.name))
        with self.opened(_upper(place, deepest), os.O_PATH | os.O_DIRECTORY) as start:
            current = os.dup(start)
        try:
            # From folder to folder: a path from the top costs as many steps as it is deep.
            for length in range(deepest + 1, len(place.segments) + 1):
                step = _upper(place, length)
                above, current = current, self._make_folder(current, step)
                os.close(above)
                # What is in the way may be a file.
                if not stat.S_ISDIR(os.fstat(current).st_mode):
                    raise StorageFault(
                        "EEXIST" if length == len(place.segments) else "ENOTDIR",
                        f"'{step.path}' exists and is not a folder.",
                    )
        finally:
            os.close(current)

    def _make_folder(self, folder: int, step: Place) -> int:
        """A descriptor of what is at ``step``, whose own folder is open as ``folder``."""
        made = True
        with faults(step.path):
            name = step.name.encode()
            try:
                os.mkdir(name, dir_fd=folder)
            except FileExistsError:
                made = False
            adopt(folder, name)
            if made:
                return self.fence.open_real(folder, [name], os.O_PATH)
        # Only from the top is known whether a link leads out of the fence.
        with self.opened(step, os.O_PATH) as found:
            return os.dup(found)

    def _deepest_folder(self, place: Place) -> int:
        """How many of the first segments lead to a folder that is there."""
        # Above a folder that is there, all are there.
        there, missing = 0, len(place.segments) + 1
        while missing - there > 1:
            depth = (there + missing) // 2
            try:
                with self.opened(_upper(place, depth), os.O_PATH | os.O_DIRECTORY):
                    there = depth
            except (NotFound, StorageFault):
                missing = depth
        return there

    def rename(self, source: Place, target: Place) -> None:
        """POSIX rename: an existing file, or empty folder, at the target is replaced."""
        with (
            self.opened(source.parent, os.O_PATH | os.O_DIRECTORY) as from_folder,
            self.opened(target.parent, os.O_PATH | os.O_DIRECTORY) as to_folder,
        ):
            name = name_on_disk(from_folder, source.name)
            with faults(source.path):
                os.stat(name, dir_fd=from_folder, follow_symlinks=False)
            with faults(f"{source.path}' to '{target.path}"):
                os.rename(name, target.name.encode(), src_dir_fd=from_folder, dst_dir_fd=to_folder)

    def behind(self, place: Place) -> Place:
        """The real place behind links; the place itself where they lead nowhere, or outside."""
        try:
            with self.opened(place, os.O_PATH) as found:
                real = Path(f"/proc/self/fd/{found}").readlink()
            inside = real.relative_to(self.root)
        except (OSError, ValueError, NotFound, StorageFault):
            return place
        return Place(tuple(readable(part) for part in inside.parts), place.fence)

    def remove(self, place: Place, *, recursive: bool) -> Iterator[list[Removed]]:
        """Remove a file, or a folder with everything below it; yields removed names in batches."""
        with self.opened(place.parent, os.O_PATH | os.O_DIRECTORY) as folder, faults(place.path):
            name = name_on_disk(folder, place.name)
            if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)
                yield [Removed(place.path, is_dir=False)]
                return
            if not recursive:
                raise StorageFault("EISDIR", f"Target is a directory: '{place.path}'.")
            yield from remove_below(self.fence, folder, name, place.path)

    # For job volumes

    def host_path(self, place: Place, *, create: bool) -> Path:
        """The real path of a file or folder, reached through no symbolic link at all.

        ``create`` makes a folder where there is nothing; a file that is there is what is meant.
        """
        real = Place(place.segments, len(place.segments))
        if create:
            try:
                self.make_folders(real)
            except StorageFault as fault:
                if fault.errno != "EEXIST":
                    raise
        with self.opened(real, os.O_PATH) as found:
            mode = os.fstat(found).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise StorageFault("EINVAL", f"'{place.path}' is neither a folder nor a file.")
            return Path(f"/proc/self/fd/{found}").readlink()


def _upper(place: Place, length: int) -> Place:
    """The folder that the first ``length`` segments lead to."""
    return Place(place.segments[:length], min(place.fence, length))


def name_on_disk(folder: int, segment: str) -> bytes:
    """The bytes of a name in an open folder; they differ from UTF-8 only for unreadable names."""
    name = segment.encode()
    if UNREADABLE not in segment or _is_there(folder, name):
        return name
    scannable = reopen(folder, _FOLDER)
    try:
        with os.scandir(scannable) as scan:
            alike = _names_like(segment, scan)
    finally:
        os.close(scannable)
    if not alike:
        return name
    if len(alike) > 1:
        raise StorageFault(
            "EILSEQ", f"{len(alike)} names look like '{segment}': rename them from a job."
        )
    return alike[0]


def _is_there(folder: int, name: bytes) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def _names_like(segment: str, scan: Iterator[os.DirEntry[str]]) -> list[bytes]:
    alike = []
    for count, entry in enumerate(scan):
        if count >= MAX_NAMES_SEARCHED:
            raise StorageFault(
                "EILSEQ",
                f"The folder of '{segment}' has over {MAX_NAMES_SEARCHED:,} names, too many to"
                " search for one that is not UTF-8: rename it from a job.",
            )
        if not entry.name.isascii() and readable(entry.name) == segment:
            alike.append(os.fsencode(entry.name))
    return alike


def _is_hidden(place: Place, name: str) -> bool:
    depth = len(place.segments)
    return (depth == 0 and name.startswith(".")) or (depth == 1 and name == STAGING)


def _check_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise StorageFault("EISDIR", f"'{path}' is a folder.")
    if not stat.S_ISREG(status.st_mode):
        raise StorageFault(
            "EINVAL", f"'{path}' is not a regular file: it cannot be read or written."
        )


def _link_status(folder: int, place: Place, permission: Action) -> FileStatus | None:
    try:
        name = name_on_disk(folder, place.name)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            return None
        target = readable(os.readlink(name, dir_fd=folder))
    except OSError:
        return None
    return _status(place.path, status, permission, target)


def _status(
    path: str, status: os.stat_result, permission: Action, target: str | None = None
) -> FileStatus:
    return FileStatus(
        path=path,
        length=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        type=_type(status.st_mode),
        modificationTime=int(status.st_mtime),
        permission=permission,
        target=target,
    )


def _type(mode: int) -> FileType:
    if stat.S_ISDIR(mode):
        return FileType.DIRECTORY
    if stat.S_ISREG(mode):
        return FileType.FILE
    return FileType.SYMLINK if stat.S_ISLNK(mode) else FileType.UNKNOWN
