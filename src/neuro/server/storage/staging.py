"""Files on their way in: written under another name, and renamed when they are whole.

They wait in ``<owner>/.neuro-uploads``, which no listing shows: on the owner's own file system, so
that the last step is a rename, which is atomic. A broken upload of one large file stays for
``KEEP_SECONDS`` and can be continued; everything else that was left behind goes with the first
upload that the owner makes after a restart.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress

from neuro.domain.errors import InvalidInput, NotFound
from neuro.server.durable import start_writeback
from neuro.server.storage.confine import Place, reopen
from neuro.server.storage.faults import faults
from neuro.server.storage.ownership import adopt, inherit
from neuro.server.storage.paths import STAGING
from neuro.server.storage.tree import Tree, name_on_disk

KEEP_SECONDS = 3 * 24 * 3600.0

# So much at a time is handed to the disk while more is coming in; the fsync at the end of a large
# upload then finds little left to do.
_WRITEBACK_BYTES = 32 << 20


def upload_name(user: str, place: Place, upload_id: str) -> str:
    """The temporary name of one user's upload to one place; ``upload_id`` is the client's."""
    text = "\0".join((user, place.path, upload_id))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Staging:
    """The waiting rooms of all owners."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._swept: set[str] = set()

    def open(self, owner: str) -> int:
        """A descriptor of the owner's waiting room, which is made if it is missing."""
        names = [owner.encode(), STAGING.encode()]
        with faults(f"/{owner}"):
            try:
                folder = self._open_room(names)
            except FileNotFoundError:
                self._make_room(owner, names[1])
                folder = self._open_room(names)
            if owner not in self._swept:
                self._make_room(owner, names[1])
                self._swept.add(owner)
                _sweep(folder)
        return folder

    def _make_room(self, owner: str, name: bytes) -> None:
        with self._tree.opened(Place((owner,), 1), os.O_PATH | os.O_DIRECTORY) as home:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=home)
            adopt(home, name)

    def _open_room(self, names: list[bytes]) -> int:
        return self._tree.fence.open(names, len(names), os.O_RDONLY | os.O_DIRECTORY)


def _sweep(folder: int) -> None:
    limit = time.time() - KEEP_SECONDS
    with os.scandir(folder) as scan:
        for entry in scan:
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.name, dir_fd=folder)


class StagedFile:
    """One file being written in a waiting room."""

    def __init__(self, room: int, name: str, fd: int, offset: int) -> None:
        self._room = room
        self._name = name
        self._fd = fd
        self._synced = offset
        self.offset = offset

    @classmethod
    def fresh(cls, room: int, *, executable: bool) -> StagedFile:
        """A new one under a name of its own."""
        name = uuid.uuid4().hex
        return cls(room, name, _create(room, name, executable), 0)

    @classmethod
    def named(cls, room: int, name: str, offset: int, *, executable: bool) -> StagedFile:
        """Begin (offset 0) or continue one. Raises InvalidInput for bytes that are not there."""
        if offset == 0:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=room)
            return cls(room, name, _create(room, name, executable), 0)
        with suppress(FileNotFoundError):
            # What was looked at is what is opened: a job may put a pipe there in between.
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=room)
            try:
                if _bytes_of(os.fstat(found)) >= offset:
                    fd = reopen(found, os.O_WRONLY)
                    os.ftruncate(fd, offset)
                    return cls(room, name, fd, offset)
            finally:
                os.close(found)
        raise InvalidInput("The upload cannot go on there: ask how much has arrived.")

    def write(self, parts: Sequence[memoryview]) -> None:
        """Put bytes behind what is there; raises OSError."""
        while parts:
            count = os.pwritev(self._fd, parts, self.offset)
            self.offset += count
            parts = _behind(parts, count)
        if self.offset - self._synced >= _WRITEBACK_BYTES:
            start_writeback(self._fd, self._synced, self.offset - self._synced)
            self._synced = self.offset

    def publish(self, folder: int, name: bytes, *, durable: bool) -> None:
        """Give the file its place; ``durable`` waits until its bytes are on the disk."""
        self._resemble(folder, name)
        if durable:
            os.fdatasync(self._fd)
        self.close()
        os.rename(self._name, name, src_dir_fd=self._room, dst_dir_fd=folder)

    def _resemble(self, folder: int, name: bytes) -> None:
        # The mode of what is replaced stays, as if it was written in place; an executable is one.
        try:
            replaced = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISREG(replaced):
            executable = os.fstat(self._fd).st_mode & 0o111
            mode = replaced & 0o777
            os.fchmod(self._fd, mode | (mode & 0o444) >> 2 if executable else mode)

    def close(self) -> None:
        """Stop writing and keep what is there, to be continued."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Stop writing and forget it."""
        self.close()
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._room)


def _behind(parts: Sequence[memoryview], count: int) -> list[memoryview]:
    rest: list[memoryview] = []
    for part in parts:
        if count < len(part):
            rest.append(part[count:])
        count = max(0, count - len(part))
    return rest


def _create(room: int, name: str, executable: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    made = os.open(name, flags, 0o777 if executable else 0o666, dir_fd=room)
    try:
        inherit(room, made)
    except OSError:
        os.close(made)
        raise
    return made


def staged_bytes(room: int, name: str) -> int:
    """How much of an upload is there; 0 for none."""
    try:
        return _bytes_of(os.stat(name, dir_fd=room, follow_symlinks=False))
    except FileNotFoundError:
        return 0


def _bytes_of(status: os.stat_result) -> int:
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


class Upload:
    """One large file on its way to its place, piece by verified piece."""

    def __init__(
        self, tree: Tree, staging: Staging, place: Place, name: str, *, size: int, offset: int,
        executable: bool,
    ) -> None:  # fmt: skip
        """``name`` is from ``upload_name``; ``size`` of the whole and ``offset`` are bytes."""
        self._tree = tree
        self._place = place
        self._size = size
        _require_parent(tree, place)
        self._room = staging.open(place.segments[0])
        try:
            with faults(place.path):
                self._file = StagedFile.named(self._room, name, offset, executable=executable)
        except BaseException:
            os.close(self._room)
            raise

    def write(self, parts: Sequence[memoryview], size: int) -> None:
        """The next ``size`` bytes; raises InvalidInput beyond the announced size."""
        if self._file.offset + size > self._size:
            raise InvalidInput(f"More than the announced {self._size} bytes came.")
        with faults(self._place.path):
            try:
                self._file.write(parts)
            except OSError:
                self._file.discard()  # What nobody sees must not keep a full disk full.
                raise

    def finish(self) -> None:
        """Put the file in its place, if all of it is there; raises InvalidInput otherwise."""
        if self._file.offset != self._size:
            raise InvalidInput(f"{self._file.offset} of {self._size} bytes came: continue there.")
        with (
            self._tree.opened(self._place.parent, os.O_PATH | os.O_DIRECTORY) as folder,
            faults(self._place.path),
        ):
            try:
                publish(self._tree, self._file, self._place, folder, durable=True)
            except OSError:
                self._file.discard()  # A folder is in the way: no use in continuing.
                raise

    def close(self) -> None:
        """Let go; what has arrived stays, to be continued."""
        self._file.close()
        os.close(self._room)


def publish(tree: Tree, file: StagedFile, place: Place, folder: int, *, durable: bool) -> None:
    """Give a file its place, whose own folder is open as ``folder``. Raises OSError.

    A link at the place stays, and what it leads to is replaced.
    """
    name = name_on_disk(folder, place.name)
    real = tree.behind(place) if _is_link(folder, name) else place
    if real == place:
        file.publish(folder, name, durable=durable)
        return
    with tree.opened(real.parent, os.O_PATH | os.O_DIRECTORY) as other:
        file.publish(other, name_on_disk(other, real.name), durable=durable)


def _is_link(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _require_parent(tree: Tree, place: Place) -> None:
    try:
        with tree.opened(place.parent, os.O_PATH | os.O_DIRECTORY):
            return
    except NotFound:
        raise NotFound(f"The folder '{place.parent.path}' was not found.") from None
