"""The store of blobs: one file for each digest, whoever pushed it. Blocking.

``blobs/sha256/ab/abcd…`` is whole and durable, or not there. What comes in grows below ``uploads``
under the upload's own name, and is renamed when its digest was found right; so it can be continued
after the server was killed at any moment. What is removed is renamed into ``trash`` first, which
takes no longer for a large file, and from there it is deleted.

What the store has is the database's to say (``tables``): a file changes its place within the
transaction that says so, while the row of its blob is locked. A crash in between leaves a file that
no row knows, which the collection removes, or a row without its file: that blob is not there until
it is pushed again.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from neuro.domain.errors import PlatformError, Unavailable
from neuro.engines.exhaustion import FULL
from neuro.server.durable import start_writeback, sync_folder
from neuro.server.registry.errors import RegistryError, WrongOffset, unknown_upload
from neuro.server.registry.names import hasher

# Beside the folders of owners, whose names begin with a letter.
IMAGES = ".neuro-images"
MAX_BLOB = 1 << 40
_READ_BYTES = 4 << 20
_WRITEBACK_BYTES = 32 << 20
_MOST_PARTS = 1024  # that one call writes
_MOST_HASHES = 4096


class BlobStore:
    """The files below one folder."""

    def __init__(self, root: Path) -> None:
        """The folder is made if it is missing. Raises OSError."""
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        self._trash = root / "trash"
        for folder in (self._blobs, self._uploads, self._trash):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # What the bytes of uploads have come to: a blob that arrives in pieces is not read again.
        self._hashes: dict[str, tuple[int, Any]] = {}
        # Folders of blobs that are on the disk for good, by name; 256 of each algorithm at most.
        self._durable: set[Path] = set()

    # Blobs

    def open(self, digest: str) -> int | None:
        """A descriptor to read a blob; None where it is not there."""
        try:
            return os.open(self._path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def place(self, upload_id: str, digest: str) -> None:
        """Let an upload be the blob, in the transaction that says so.

        Raises OSError, RegistryError for an unknown one.
        """
        path, upload = self._path(digest), self._upload(upload_id)
        with suppress(FileExistsError):
            path.parent.mkdir(parents=True, mode=0o700)
            self._durable.discard(path.parent)
        try:
            os.utime(upload)  # The collection takes what no row knows by its age: it begins now.
        except FileNotFoundError:
            raise unknown_upload() from None  # It was cancelled meanwhile.
        upload.rename(path)

    def keep(self, digest: str) -> None:
        """Wait until the place of a blob is on the disk."""
        folder = self._path(digest).parent
        sync_folder(folder)
        if folder not in self._durable:  # Whoever has made it may not have come so far.
            for above in (folder.parent, folder.parent.parent):
                sync_folder(above)
            self._durable.add(folder)

    def throw_away(self, digest: str, before: float) -> bool:
        """Let a blob be gone that has its place since before a unix time, in the transaction that
        says so; whether it is. Raises OSError.

        A database ends a transaction that a slow disk holds up, and gives its rows to others: what
        has been pushed since is put back, or is in its place already, with the same bytes.
        """
        path, trash = self._path(digest), self._trash / f"{digest}.{time.time_ns()}"
        try:
            path.rename(trash)
            if trash.stat().st_mtime < before:
                return True
            trash.rename(path)
        except FileNotFoundError:
            pass
        return False

    def empty_trash(self, most: int) -> tuple[int, int]:
        """Delete ``most`` files that were thrown away; returns how many, and their bytes.

        Raises OSError.
        """
        count = freed = 0
        for name, status in islice(self.trash(), most):
            (self._trash / name).unlink(missing_ok=True)
            count, freed = count + 1, freed + status.st_size
        return count, freed

    def read_again(self, digest: str) -> Reading | None:
        """Begin to read a blob, to see whether it is right; None where it is not there."""
        fd = self.open(digest)
        return None if fd is None else Reading(fd, digest)

    def take_away(self, digest: str, status: os.stat_result) -> bool:
        """Throw a rotten blob away, in a transaction that locks its row; whether it was this one.

        Raises OSError.
        """
        path = self._path(digest)
        try:
            if not os.path.samestat(path.stat(), status):
                return False  # Somebody has pushed it again.
            path.rename(self._trash / f"{digest}.{time.time_ns()}")
        except FileNotFoundError:
            return False
        return True

    def trash(self) -> Iterator[tuple[str, os.stat_result]]:
        """The name and the status of each file that was thrown away: a digest comes first in it."""
        return _entries(self._trash)

    def files(self) -> Iterator[tuple[str, os.stat_result]]:
        """The digest and the status of each file of the store."""
        for algorithm in sorted(self._blobs.iterdir()):
            for folder in sorted(algorithm.iterdir()):
                for name, status in _entries(folder):
                    yield f"{algorithm.name}:{name}", status

    # Uploads

    def begin(self, upload_id: str) -> None:
        """Make room for an upload. Raises Unavailable where the disk is full."""
        with _disk():
            os.close(os.open(self._upload(upload_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def size_of_uploads(self, upload_ids: Iterable[str]) -> int:
        """How many bytes have arrived for all of some uploads."""
        size = 0
        for upload_id in upload_ids:
            with suppress(FileNotFoundError):
                size += self._upload(upload_id).stat().st_size
        return size

    def size_of_upload(self, upload_id: str) -> int:
        """How many bytes have arrived. Raises RegistryError for an unknown one."""
        try:
            return self._upload(upload_id).stat().st_size
        except FileNotFoundError:
            raise unknown_upload() from None

    def continue_upload(self, upload_id: str, algorithm: str) -> Incoming:
        """Go on with an upload where it ended; it is this one's alone until it is closed.

        What has arrived is read again only where another ``algorithm`` was thought of, or another
        server took it.

        Raises RegistryError for an unknown one, and where somebody else goes on with it.
        """
        try:
            fd = os.open(self._upload(upload_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise unknown_upload() from None
        try:
            # Of all servers, and ended by the kernel where one is killed.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_upload(fd, upload_id):
                raise unknown_upload()  # It became a blob before it was locked, and is to stay one.
            size = os.fstat(fd).st_size
            seen, digest = self._hashes.pop(upload_id, (0, hasher(algorithm)))
            if seen > size or digest.name != algorithm:
                seen, digest = 0, hasher(algorithm)
            _catch_up(fd, digest, seen, size)
        except BlockingIOError:
            os.close(fd)
            raise RegistryError(
                "BLOB_UPLOAD_INVALID",
                409,
                "Another request is bringing a part of this upload: go on when it has ended.",
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return Incoming(self, upload_id, fd, size, digest)

    def _is_upload(self, fd: int, upload_id: str) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(fd), self._upload(upload_id).stat())
        return False

    def remember(self, upload_id: str, size: int, digest: Any) -> None:
        """Keep what the first bytes of an upload have come to; where it is lost, they are read."""
        if len(self._hashes) >= _MOST_HASHES:
            self._hashes.clear()
        self._hashes[upload_id] = size, digest

    def discard(self, upload_id: str) -> None:
        """Forget an upload. Raises OSError."""
        self._hashes.pop(upload_id, None)
        self._upload(upload_id).unlink(missing_ok=True)

    def uploads(self) -> Iterator[tuple[str, os.stat_result]]:
        """The id and the status of each upload that has begun."""
        return _entries(self._uploads)

    def _path(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._blobs / algorithm / encoded[:2] / encoded

    def _upload(self, upload_id: str) -> Path:
        return self._uploads / upload_id


class Incoming:
    """An upload that bytes are coming to. They are hashed as they come, and not read again."""

    def __init__(self, store: BlobStore, upload_id: str, fd: int, size: int, digest: Any) -> None:
        self._store = store
        self._fd = fd
        self._digest = digest
        self._written_back = size
        self._is_over = False
        self._room: tuple[int, PlatformError] | None = None
        self._end: int | None = None  # of the piece that comes, where it says how long it is
        self._before = size, digest.copy()
        self.upload_id = upload_id
        self.size = size

    def check_offset(self, offset: int) -> None:
        """Raise WrongOffset unless a piece that begins there comes next."""
        if offset != self.size:
            raise WrongOffset(
                self.size,
                f"The piece begins at {offset}, and {self.size} bytes of the upload have arrived:"
                " go on there.",
            )

    def allow(self, size: int, error: PlatformError) -> None:
        """Say how many bytes the upload may have: with more it is forgotten, with an error."""
        self._room = size, error

    def expect(self, length: int) -> None:
        """Say how many bytes come next: more are refused."""
        self._end = self.size + length

    def check_end(self) -> None:
        """Raise RegistryError unless all that was expected has come; nothing was added then."""
        if self._end is not None and self.size != self._end:
            self._take_back(f"only {self.size - self._before[0]} have arrived")

    def _take_back(self, why: str) -> NoReturn:
        """Be as if the piece had not come. Raises RegistryError, OSError."""
        assert self._end is not None
        length = self._end - self._before[0]
        self.size, self._digest = self._before
        self._written_back = min(self._written_back, self.size)
        os.ftruncate(self._fd, self.size)
        raise RegistryError(
            "SIZE_INVALID", 400, f"Content-Range says {length} bytes, and {why}: send it again."
        )

    def write(self, pieces: Sequence[bytes]) -> None:
        """Add bytes. Raises RegistryError where they are more than were expected: none of the piece
        is added then. Raises Unavailable where the disk is full: the upload is forgotten then.
        """
        more = sum(map(len, pieces))
        if self._end is not None and self.size + more > self._end:
            self._take_back("more have arrived")
        if self._room is not None and self.size + more > self._room[0]:
            self.discard()
            raise self._room[1]
        if self.size + more > MAX_BLOB:
            raise RegistryError("SIZE_INVALID", 413, f"A blob can have {MAX_BLOB} bytes.")
        try:
            with _disk():
                _write_all(self._fd, pieces, self.size)
        except BaseException:
            self.discard()  # What nobody sees must not keep a full disk full.
            raise
        for piece in pieces:
            self._digest.update(piece)
        self.size += more
        if self.size - self._written_back >= _WRITEBACK_BYTES:
            start_writeback(self._fd, self._written_back, self.size - self._written_back)
            self._written_back = self.size

    def finish(self, digest: str) -> None:
        """Wait until all of it is on the disk. Raises RegistryError for another digest."""
        found = f"{self._digest.name}:{self._digest.hexdigest()}"
        if found != digest:
            self.discard()
            raise RegistryError(
                "DIGEST_INVALID",
                400,
                f"What has arrived is {found}, and not {digest}: push it again.",
                {"digest": digest},
            )
        with _disk():
            os.fdatasync(self._fd)

    def place(self, digest: str) -> None:
        """Be the blob, in the transaction that says so. Raises OSError."""
        self._store.place(self.upload_id, digest)
        self._is_over = True

    def discard(self) -> None:
        """Forget what has arrived. Raises OSError."""
        self._is_over = True
        self._store.discard(self.upload_id)

    def reader(self) -> int:
        """Another descriptor of the same bytes, for the caller to close."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Let go; what has arrived stays, to be continued."""
        if not self._is_over:
            self._store.remember(self.upload_id, self.size, self._digest)
        os.close(self._fd)


class Reading:
    """A blob that is read once more; ``done`` bytes of it so far."""

    def __init__(self, fd: int, digest: str) -> None:
        self._fd = fd
        self._digest = digest
        self._hash = hasher(digest.partition(":")[0])
        self._is_readable = True
        self.done = 0

    def go_on(self) -> bool:
        """Read the next piece; False at the end."""
        try:
            piece = os.pread(self._fd, _READ_BYTES, self.done)
        except OSError:
            self._is_readable = False  # The disk has lost it.
            return False
        self._hash.update(piece)
        # What pulls need stays in memory, and not this.
        os.posix_fadvise(self._fd, self.done, len(piece), os.POSIX_FADV_DONTNEED)
        self.done += len(piece)
        return bool(piece)

    @property
    def is_right(self) -> bool:
        """Whether all of it was read, and is what its digest says."""
        found = f"{self._hash.name}:{self._hash.hexdigest()}"
        return self._is_readable and found == self._digest

    def close(self) -> None:
        """Let go."""
        os.close(self._fd)


def _entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as found:
        for entry in found:
            with suppress(FileNotFoundError):
                yield entry.name, entry.stat()


def _catch_up(fd: int, digest: Any, start: int, end: int) -> None:
    while start < end:
        piece = os.pread(fd, min(_READ_BYTES, end - start), start)
        if not piece:
            raise unknown_upload()  # It was cut, which nothing here does.
        digest.update(piece)
        start += len(piece)


def _write_all(fd: int, pieces: Sequence[bytes], offset: int) -> None:
    rest = [memoryview(piece) for piece in pieces if piece]
    while rest:
        count = os.pwritev(fd, rest[:_MOST_PARTS], offset)
        offset += count
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if count:
            rest[0] = rest[0][count:]


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise Unavailable(
                "The server's disk is full, so nothing can be pushed now: tell its administrator."
            ) from error
        raise
