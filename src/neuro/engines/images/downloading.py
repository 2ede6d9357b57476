"""Downloads of blobs: each once for all who want it from one repository, and checked."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable

from neuro.engines.images import locks
from neuro.engines.images.faults import FaultKind, ImageFault, corrupt
from neuro.engines.images.limits import no_room
from neuro.engines.images.manifests import Descriptor
from neuro.engines.images.registry_client import Answer, Registry
from neuro.engines.images.stopping import Stop
from neuro.engines.images.store import Store

_PIECE = 1 << 18
_TRIES = 5  # downloads that bring nothing
_LOOK = 64 << 20  # bytes between two looks at the disk
_SLOWEST = 4 << 10  # bytes in a second, on average over so many seconds
_MEASURED = 60.0


class Downloads:
    """Of one repository, ``source``, into a store. ``pause`` is seconds after the first failure."""

    def __init__(
        self, store: Store, source: str, registry: Registry, stop: Stop, pause: float
    ) -> None:
        self._store = store
        self._source = source
        self._registry = registry
        self._stop = stop
        self._pause = pause

    def size(self, blob: Descriptor) -> int:
        """How many bytes of a blob have come, whoever fetches it."""
        try:
            return os.stat(self._store.shelves.download(self._source, blob.digest)).st_size
        except FileNotFoundError:
            return 0

    def open(self, blob: Descriptor, reached: Callable[[int], None]) -> int:
        """A file with the blob, open and already without a name.

        ``reached`` is told how many bytes of it are here. Raises ImageFault and Stopped.
        """
        shelves = self._store.shelves
        path = shelves.download(self._source, blob.digest)
        self._store.check_room(blob.size - self.size(blob))
        lock_path = shelves.download_lock(self._source, blob.digest)
        with locks.alone_unless(lock_path, self._stop, lambda: reached(self.size(blob))) as lock:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._fill(fd, blob, reached)
            except BaseException as error:
                os.close(fd)
                if isinstance(error, ImageFault) and error.kind in _USELESS:
                    os.unlink(path)
                raise
            os.unlink(path)
            lock.remove()
        return fd

    def _fill(self, fd: int, blob: Descriptor, reached: Callable[[int], None]) -> None:
        """Bring what is missing of a blob, and check all of it."""
        draft = _Draft(fd, blob)
        began_at = draft.size
        try:
            self._complete(draft, blob, reached)
            if began_at == blob.size and not self._registry.has(blob.digest):
                draft.begin()  # whether we may have it is for the registry to say
                self._complete(draft, blob, reached)
            draft.check()
        except ImageFault as fault:
            if fault.kind is not FaultKind.CORRUPT or not began_at:
                raise
            draft.begin()  # what was here from before may be what is wrong
            self._complete(draft, blob, reached)
            draft.check()

    def _complete(self, draft: _Draft, blob: Descriptor, reached: Callable[[int], None]) -> None:
        tries = 0
        while draft.size < blob.size:
            before = draft.size
            fault = self._more(draft, blob, reached)
            tries = 0 if draft.size > before else tries + 1
            if fault is not None:
                if tries == _TRIES:
                    raise fault
                self._stop.wait(self._pause * 2 ** max(0, tries - 1))

    def _more(
        self, draft: _Draft, blob: Descriptor, reached: Callable[[int], None]
    ) -> ImageFault | None:
        """One download; what it ended with if that is worth another try. Raises ImageFault."""
        name = self._source.partition("/")[0]
        sentence = f"The connection to the registry {name} is cut each time."
        cut = ImageFault(FaultKind.AWAY, sentence)
        pace = _Pace(name)
        try:
            with self._registry.blob(blob.digest, draft.size) as answer:
                if not _continues(answer, draft.size):
                    draft.begin()
                while piece := answer.read(_PIECE):
                    self._stop.check()
                    draft.add(piece)
                    pace.add(len(piece))
                    if pace.looks:
                        self._store.check_room(blob.size - draft.size)
                    reached(draft.size)
        except ImageFault as fault:
            if fault.kind is not FaultKind.AWAY or pace.is_slow:
                raise
            return fault
        except (ConnectionError, TimeoutError):
            self._stop.check()
            return cut
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise no_room(0, blob.size - draft.size) from error
        self._stop.check()
        return cut if draft.size < blob.size else None


# What a download leaves behind that ended so is of no use, or takes room that others need.
_USELESS = (FaultKind.CORRUPT, FaultKind.NO_ROOM)


class _Pace:
    """How fast a download is: one that hardly moves holds up who waits for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._since, self._size = time.monotonic(), 0
        self._unseen = 0
        self.is_slow = False

    def add(self, size: int) -> None:
        """So many bytes came. Raises ImageFault where that is too slow for too long."""
        self._size += size
        self._unseen += size
        seconds = time.monotonic() - self._since
        if seconds >= _MEASURED:
            self.is_slow = self._size < _SLOWEST * seconds
            if self.is_slow:
                raise ImageFault(
                    FaultKind.AWAY,
                    f"The registry {self._name} sends less than {_SLOWEST} bytes in a second; what"
                    " came is kept for the next try.",
                )
            self._since, self._size = time.monotonic(), 0

    @property
    def looks(self) -> bool:
        """Whether it is time to look at the disk; then not for a while."""
        if self._unseen < _LOOK:
            return False
        self._unseen = 0
        return True


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


def _continues(answer: Answer, offset: int) -> bool:
    if answer.status != 206:
        return offset == 0
    return answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
