"""The platform's file tree, from the SDK's side."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.client.storage import globs, local, remote
from neuro.client.storage.calls import Calls
from neuro.client.storage.filters import Filter
from neuro.client.storage.local import LocalFile, LocalFolder, Odd
from neuro.client.storage.transfer import Outcome, Progress, Silent, Tally
from neuro.client.storage.upload import Uploader
from neuro.domain.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PlatformError,
    StorageFault,
)
from neuro.domain.frames import PIECE_BYTES
from neuro.domain.storage import DiskUsage, FileStatus, FileType, Removed
from neuro.domain.uris import ResourceURI, complete_uri

if TYPE_CHECKING:
    from neuro.client.client import Client
    from neuro.client.storage.download import Downloader

URI = str | ResourceURI
LocalPath = str | os.PathLike[str]

NO_FILTER = Filter()


class Storage:
    """Files on the platform.

    A URI is ``storage:path`` (in one's own home), ``storage:/owner/path``,
    ``storage://cluster/owner/path``, or a ResourceURI. Every method raises NotFound, NotPermitted,
    StorageFault (with a POSIX ``errno``), InvalidInput for a URI that makes no sense, and
    ServerUnreachable. Sizes are bytes.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls = Calls(client)

    def uri(self, text: URI) -> ResourceURI:
        """The full URI of a short one."""
        if isinstance(text, ResourceURI):
            return text
        client = self._client
        return complete_uri(text, "storage", cluster=client.cluster, user=client.user)

    # Looking

    async def list(self, uri: URI) -> AsyncGenerator[FileStatus, None]:
        """What is in a folder, in no order; ``path`` is the name. StorageFault ENOTDIR."""
        async for entry in self._calls.entries(self.uri(uri)):
            yield entry

    async def stat(self, uri: URI) -> FileStatus:
        """What is there; links are followed where they stay in the storage."""
        return await self._calls.status(self.uri(uri))

    async def exists(self, uri: URI) -> bool:
        """Whether there is anything (that the caller may see)."""
        return await remote.optional_status(self._calls, self.uri(uri)) is not None

    async def is_folder(self, uri: URI) -> bool:
        """Whether there is a folder."""
        status = await remote.optional_status(self._calls, self.uri(uri))
        return status is not None and status.type is FileType.DIRECTORY

    async def disk_usage(self, uri: URI = "storage:") -> DiskUsage:
        """Of the disk that the folder is on."""
        return await self._calls.usage(self.uri(uri))

    async def walk(
        self, uri: URI, keep: Filter = NO_FILTER
    ) -> AsyncGenerator[tuple[str, FileStatus], None]:
        """Everything below a folder, each with its path relative to it; folders come first."""
        async for entry in remote.walk(self._calls, self.uri(uri), keep):
            yield entry.relative, entry.status

    async def glob(self, pattern: str) -> AsyncGenerator[ResourceURI, None]:
        """What matches ``storage:data/**/*.txt``: ``*``, ``?``, ``[…]`` and ``**``."""
        async for found in self.glob_entries(pattern):
            yield found.uri

    async def glob_entries(self, pattern: str) -> AsyncGenerator[globs.Match, None]:
        """What matches, with what the listings of folders say of it."""
        parsed = globs.parse_pattern(pattern, cluster=self._client.cluster, user=self._client.user)
        if not parsed.parts and not await self.exists(parsed.start):
            return
        async for found in globs.expand(parsed, self._calls.entries):
            yield found

    # Reading and writing

    async def read(
        self, uri: URI, *, offset: int = 0, size: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A file's bytes from ``offset``, ``size`` of them or all. StorageFault EISDIR."""
        if size == 0:
            return
        end = None if size is None else offset + size
        request = await self._calls.open(self.uri(uri), first=offset, end=end)
        async with self._calls.sending(request) as response:
            async for chunk in response.chunks():
                yield chunk

    async def read_bytes(self, uri: URI) -> bytes:
        """All of a file, in memory."""
        return b"".join([chunk async for chunk in self.read(uri)])

    async def create(self, uri: URI, data: Iterable[bytes] | bytes = b"") -> None:
        """Write a file, replacing what is there. Its folder must be there.

        While it is being written, others can see a part of it; ``upload_file`` avoids that.
        """
        target = self.uri(uri)
        pieces = [data] if isinstance(data, bytes) else data
        offset = -1
        for piece in pieces:
            for start in range(0, len(piece), PIECE_BYTES):
                part = piece[start : start + PIECE_BYTES]
                if offset < 0:
                    await self._calls.create(target, part)
                    offset = 0
                else:
                    await self._calls.write(target, part, offset)
                offset += len(part)
        if offset < 0:
            await self._calls.create(target, b"")

    async def write(self, uri: URI, data: bytes, offset: int) -> None:
        """Write into a file that is there, from ``offset`` on."""
        if data:
            await self._calls.write(self.uri(uri), data, offset)

    # Changing

    async def mkdir(self, uri: URI, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder. Without ``parents`` the one above must be there (NotFound).

        Without ``exist_ok``, StorageFault EEXIST where there is anything already.
        """
        target = self.uri(uri)
        if not exist_ok and await self.exists(target):
            raise StorageFault("EEXIST", f"'{target}' exists already.")
        if not parents and len(target.segments) > 1:
            above = ResourceURI(target.scheme, target.host, target.segments[:-1])
            status = await remote.optional_status(self._calls, above)
            if status is None:
                raise NotFound(f"The folder '{above}' was not found.")
            if status.type is not FileType.DIRECTORY:
                raise StorageFault("ENOTDIR", f"'{above}' is not a folder.")
        await self._calls.make_folders(target)

    async def rename(self, source: URI, target: URI) -> None:
        """Give something another name, replacing a file or an empty folder that has it."""
        await self._calls.rename(self.uri(source), self.uri(target))

    async def remove(self, uri: URI, *, recursive: bool = False) -> AsyncGenerator[Removed, None]:
        """Remove a file, or with ``recursive`` a folder; yields what was removed.

        The removal goes as far as the iteration does. StorageFault EISDIR.
        """
        async for removed in self._calls.remove(self.uri(uri), recursive):
            yield removed

    # Copying

    async def upload_file(
        self,
        source: LocalPath,
        target: URI,
        *,
        update: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> bool:
        """Copy a file of this machine to ``target``, which appears when it is whole.

        ``update`` leaves a file alone that has the same size there and is not older; ``resume``
        goes on with an upload that broke off. Returns False where nothing was to be done.
        """
        path = Path(source)
        file = local.describe(path, "")
        uploader = self._uploader(target, Tally(progress or Silent()), update, resume)
        return await uploader.send_one(file)

    async def upload_files(
        self,
        sources: Sequence[LocalPath],
        target: URI,
        *,
        update: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Outcome:
        """Copy files of this machine into the folder ``target``, under their own names.

        What fails does not stop the rest; it is in the outcome.
        """
        tally = Tally(progress or Silent())
        uri = self.uri(target)
        files: dict[str, LocalFile] = {}
        for source in map(Path, sources):
            try:
                if source.name in files:
                    raise AlreadyExists(f"another file is called '{source.name}' too.")
                files[source.name] = local.describe(source, source.name)
            except PlatformError as error:
                tally.fail(str(source), str(uri.child(source.name)), error)
        await self._uploader(uri, tally, update, resume).send([], list(files.values()))
        return tally.outcome

    async def upload_tree(
        self,
        source: LocalPath,
        target: URI,
        *,
        keep: Filter = NO_FILTER,
        ignore_files: Sequence[str] = (),
        update: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Outcome:
        """Copy what is in a folder of this machine into ``target``, which is made.

        ``ignore_files``: names of files with patterns (``.neuroignore``). What fails does not stop
        the rest; it is in the outcome.
        """
        items = local.walk(Path(source), keep, ignore_files)
        return await self.upload_items(
            items, target, update=update, resume=resume, progress=progress
        )

    async def upload_items(
        self,
        items: Iterable[LocalFile | LocalFolder | Odd],
        target: URI,
        *,
        update: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Outcome:
        """Copy what somebody has found on this machine into ``target``: see ``upload_tree``."""
        tally = Tally(progress or Silent())
        uri = self.uri(target)
        folders: list[LocalFolder] = []
        files: list[LocalFile] = []
        for item in items:
            if isinstance(item, Odd) and item.special:
                tally.skip(item.path, item.why)
            elif isinstance(item, Odd):
                where = uri.child(*item.relative.split("/")) if item.relative else uri
                tally.fail(item.path, str(where), InvalidInput(f"{item.why}."))
            elif isinstance(item, LocalFolder):
                folders.append(item)
            else:
                files.append(item)
        await self._uploader(uri, tally, update, resume).send(folders, files)
        return tally.outcome

    def _uploader(self, target: URI, tally: Tally, update: bool, resume: bool) -> Uploader:
        transport = self._client.transport
        uri = self.uri(target)
        return Uploader(self._calls, transport, uri, tally, update=update, resume=resume)

    async def download_file(
        self,
        source: URI,
        target: LocalPath,
        *,
        update: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> bool:
        """Copy a file to this machine; see ``upload_file``."""
        uri = self.uri(source)
        status = await self._calls.status(uri)
        if status.type is FileType.DIRECTORY:
            raise StorageFault("EISDIR", f"'{uri}' is a folder.")
        tally = Tally(progress or Silent())
        return await self._downloader(uri, target, tally, update, resume).bring_one(status)

    async def download_tree(
        self,
        source: URI,
        target: LocalPath,
        *,
        keep: Filter = NO_FILTER,
        update: bool = False,
        keep_newer: bool = False,
        resume: bool = False,
        progress: Progress | None = None,
    ) -> Outcome:
        """Copy what is in a folder to this machine, into ``target``, which is made.

        Links to files are followed where they stay in the storage; other links fail. What is
        neither file nor folder is skipped. ``update`` leaves a file alone that has the same size
        and is not older here, with ``keep_newer`` also a newer one of another size.
        """
        uri = self.uri(source)
        status = await self._calls.status(uri)
        if status.type is not FileType.DIRECTORY:
            raise StorageFault("ENOTDIR", f"'{uri}' is not a folder.")
        tally = Tally(progress or Silent())
        entries = [entry async for entry in self._wanted(uri, target, keep, tally)]
        downloader = self._downloader(uri, target, tally, update, resume, keep_newer)
        await downloader.bring(entries)
        return tally.outcome

    async def _wanted(
        self, top: ResourceURI, target: LocalPath, keep: Filter, tally: Tally
    ) -> AsyncIterator[remote.RemoteEntry]:
        async for entry in remote.walk(self._calls, top, keep):
            if entry.status.type is FileType.SYMLINK:
                where = top.child(*entry.relative.split("/"))
                status = await remote.optional_status(self._calls, where)
                if status is None or status.type is not FileType.FILE:
                    error = NotFound("the link does not lead to a file in the storage.")
                    tally.fail(str(where), os.path.join(target, entry.relative), error)
                    continue
                yield remote.RemoteEntry(entry.relative, status)
            elif entry.status.type is FileType.UNKNOWN:
                where = top.child(*entry.relative.split("/"))
                tally.skip(str(where), "it is neither a file nor a folder")
            else:
                yield entry

    def _downloader(
        self,
        source: ResourceURI,
        target: LocalPath,
        tally: Tally,
        update: bool,
        resume: bool,
        keep_newer: bool = False,
    ) -> Downloader:
        from neuro.client.storage.download import Downloader  # most commands only send

        return Downloader(
            self._calls,
            self._client.transport,
            source,
            Path(target),
            tally,
            update=update,
            resume=resume,
            keep_newer=keep_newer,
        )
