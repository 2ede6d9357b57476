"""The storage's rules, for programs with an event loop. No HTTP, no permissions.

Files work happens in a bounded pool of threads, so that a slow disk never stops the server, and
each person has a share of it (``neuro.server.threads``).
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from neuro.domain.errors import InvalidInput, NotFound, StorageFault, Unavailable
from neuro.domain.permissions import Action
from neuro.domain.storage import DiskUsage, FileStatus, Removed
from neuro.domain.uris import ResourceURI
from neuro.engines.exhaustion import FAILING
from neuro.server.access.people import person_of
from neuro.server.storage.bulk import BulkIntake, outgoing
from neuro.server.storage.confine import Place
from neuro.server.storage.faults import faults
from neuro.server.storage.ownership import give_all
from neuro.server.storage.paths import parse_path
from neuro.server.storage.staging import Staging, Upload, staged_bytes, upload_name
from neuro.server.storage.tree import Tree
from neuro.server.threads import Threads, working_for

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 8
THREADS_PER_PERSON = 4


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that is open for reading; ``size`` in bytes, ``modified`` in unix seconds."""

    fd: int
    size: int
    modified: float
    executable: bool
    version: str

    def close(self) -> None:
        os.close(self.fd)


class StorageService:
    """Files of all owners below one folder of the machine: ``root/<owner>/…``."""

    def __init__(
        self,
        root: Path,
        cluster: str,
        *,
        owner: int | None = None,
        use_openat2: bool | None = None,
    ) -> None:
        """The folder is made if it is missing. ``use_openat2`` None asks the kernel.

        ``owner`` is the user and group of the machine that all files belong to; None: ours.
        """
        self.cluster = cluster
        self._tree = Tree(root, use_openat2=use_openat2)
        if owner is not None:
            give_all(self._tree.root, owner)
        self._staging = Staging(self._tree)
        self._threads = Threads(THREADS, THREADS_PER_PERSON, "storage")
        # How many bodies are coming in now; they share the memory for what is not written yet.
        self.receiving = 0

    async def close(self) -> None:
        """Wait for work in the threads, and let go of the folder."""
        await self._threads.close()
        self._tree.close()

    def make_home(self, owner: str) -> None:
        """Make an owner's folder; nothing if it is there. A few system calls, no waiting."""
        self._tree.make_home(owner)

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in one of the storage's threads.

        A caller that is cancelled waits for the thread all the same: what it works on (an open
        file) must not be closed under its hands.
        """
        return await self._acquire(_nothing, work, *args, **kwargs)

    async def _acquire(
        self,
        release: Callable[[T], object],
        work: Callable[P, T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like ``in_thread``; ``release`` takes back a result that nobody waits for any more."""
        return await self._threads.whole(lambda: work(*args, **kwargs), release)

    async def _stepped(self, items: Iterator[T]) -> AsyncGenerator[T, None]:
        end = object()
        try:
            while (item := await self.in_thread(next, items, end)) is not end:
                yield item  # type: ignore[misc]
        finally:
            # While a cancelled step still runs, the iterator cannot be closed; it ends by itself.
            with suppress(ValueError):
                await self.in_thread(getattr(items, "close", lambda: None))

    # Looking

    async def status(self, place: Place, permission: Action) -> FileStatus:
        """What is at a place. Raises NotFound."""
        return await self.in_thread(self._tree.status, place, permission)

    async def check_folder(self, place: Place) -> None:
        """Raise NotFound, or StorageFault ENOTDIR, unless the place is a folder."""
        await self.in_thread(self._check_folder, place)

    def _check_folder(self, place: Place) -> None:
        with self._tree.opened(place, os.O_PATH | os.O_DIRECTORY):
            pass

    def entries(
        self,
        place: Place,
        permission: Action,
        *,
        known: dict[str, Action],
        only: bool,
    ) -> AsyncGenerator[list[FileStatus], None]:
        """A folder's entries in batches; ``known`` names with a wider permission of their own.

        With ``only``, other names are left out. Raises NotFound, StorageFault ENOTDIR.
        """
        return self._stepped(self._tree.entries(place, permission, known, only))

    async def usage(self, place: Place) -> DiskUsage:
        """Bytes of the file system under a place. Raises NotFound."""
        return await self.in_thread(self._tree.usage, place)

    # Reading

    async def open(self, place: Place) -> OpenFile:
        """Open a regular file; the caller closes it. NotFound, StorageFault EISDIR, EINVAL."""
        fd, status = await self._acquire(
            lambda opened: os.close(opened[0]), self._tree.open_file, place
        )
        return OpenFile(
            fd=fd,
            size=status.st_size,
            modified=status.st_mtime,
            executable=bool(status.st_mode & 0o111),
            version=f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}",
        )

    def fetch(self, place: Place, paths: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """The frames of many files below a folder (``neuro.domain.frames``)."""
        return self._stepped(outgoing(self._tree, place, paths))

    # Writing

    async def open_for_writing(self, place: Place, *, create: bool) -> int:
        """A descriptor for writing; ``create`` makes the file or empties it."""
        return await self._acquire(os.close, self._tree.open_for_writing, place, create=create)

    async def begin_upload(
        self, place: Place, user: str, upload_id: str, *, size: int, offset: int, executable: bool
    ) -> Upload:
        """Begin, or continue, one file that appears whole. NotFound without its folder."""
        _refuse_root(place)
        name = upload_name(user, place, upload_id)
        return await self._acquire(
            Upload.close, Upload, self._tree, self._staging, place, name,
            size=size, offset=offset, executable=executable,
        )  # fmt: skip

    async def upload_offset(self, place: Place, user: str, upload_id: str) -> int:
        """How many bytes of such an upload have arrived."""
        _refuse_root(place)
        return await self.in_thread(self._staged, place, upload_name(user, place, upload_id))

    def _staged(self, place: Place, name: str) -> int:
        room = self._staging.open(place.segments[0])
        try:
            with faults(place.path):
                return staged_bytes(room, name)
        finally:
            os.close(room)

    async def begin_bulk(self, place: Place) -> BulkIntake:
        """Begin taking many files below a folder, which is made if it is missing."""
        return await self._acquire(BulkIntake.close, self._begin_bulk, place)

    def _begin_bulk(self, place: Place) -> BulkIntake:
        self._tree.make_folders(place)
        return BulkIntake(self._tree, self._staging, place)

    async def make_folders(self, place: Place) -> None:
        """Make a folder and those above it. StorageFault EEXIST where a file is in the way."""
        await self.in_thread(self._tree.make_folders, place)

    async def rename(self, source: Place, target: Place) -> None:
        """POSIX rename. Raises NotFound, StorageFault (ENOTEMPTY, EISDIR, EINVAL …)."""
        _refuse_root(source)
        _refuse_root(target)
        await self.in_thread(self._tree.rename, source, target)

    def remove(self, place: Place, *, recursive: bool) -> AsyncGenerator[list[Removed], None]:
        """Remove; yields what was removed. Raises NotFound, StorageFault EISDIR."""
        _refuse_root(place)
        return self._stepped(self._tree.remove(place, recursive=recursive))

    # For jobs

    async def in_turn_of(
        self, person: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``in_thread`` for ``person``, where no request of theirs says who it is for."""
        with working_for(person_of(person)):
            return await self.in_thread(work, *args, **kwargs)

    def host_path(self, uri: ResourceURI, *, create: bool) -> Path:
        """The real folder or file behind a storage URI, for a job's volume.

        ``create`` makes missing folders. No component of it is a symbolic link. Raises NotFound
        where there is nothing, InvalidInput for another cluster, for links and special files,
        Unavailable where the server's disk is full or does not answer.
        Blocking: system calls for every folder on the way.
        """
        if uri.scheme != "storage" or uri.host != self.cluster:
            raise InvalidInput(
                f"'{uri}' is not in this cluster's storage, storage://{self.cluster}."
            )
        segments = parse_path(uri.path)
        try:
            if create and segments:
                with faults(segments[0]):
                    self.make_home(segments[0])
            return self._tree.host_path(Place(segments, len(segments)), create=create)
        except NotFound:
            raise NotFound(f"'{uri}' was not found in the storage.") from None
        except StorageFault as fault:
            if fault.number in FAILING:  # no other path would help
                raise Unavailable(f"'{uri}' cannot be used now: {fault.message}") from None
            raise InvalidInput(f"'{uri}' cannot be mounted: {fault.message}") from None


def _nothing(_: object) -> None:
    """Nothing to take back."""


def _refuse_root(place: Place) -> None:
    if len(place.segments) < 2:
        raise StorageFault(
            "EPERM",
            f"'{place.path}' is the root of an owner's files: it cannot be moved or removed.",
        )
