"""Bringing files here: many small ones in one stream, a large one so that it can be continued."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from neuro.client.storage.calls import Calls
from neuro.client.storage.local import Draft, Stream, draft_bytes, is_replaceable
from neuro.client.storage.remote import RemoteEntry
from neuro.client.storage.transfer import (
    BATCH_BYTES,
    BATCH_FILES,
    SMALL_BYTES,
    Retry,
    Tally,
    local_fault,
    work_off,
)
from neuro.client.transport import ServerUnreachable, Transport
from neuro.domain.errors import InvalidInput, PlatformError, StorageFault, Unavailable
from neuro.domain.frames import FaultMessage, Frame, FrameReader, Kind
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import ResourceURI

# A broken download of more than this is kept, for --continue.
KEEP_BYTES = 8 << 20


class Downloader:
    """Brings files from below one folder of the storage below a folder of this machine."""

    def __init__(
        self,
        calls: Calls,
        transport: Transport,
        source: ResourceURI,
        target: Path,
        tally: Tally,
        *,
        update: bool = False,
        resume: bool = False,
        keep_newer: bool = False,
    ) -> None:
        """``update`` skips files of the same size that are not newer there.

        With ``keep_newer`` it skips those of another size, too. ``resume`` goes on with what broke
        off.
        """
        self._calls = calls
        self._transport = transport
        self._source = source
        self._target = target
        self._tally = tally
        self._update = update
        self._resume = resume
        self._keep_newer = keep_newer

    def _uri(self, relative: str) -> ResourceURI:
        return self._source.child(*relative.split("/")) if relative else self._source

    def _path(self, relative: str) -> str:
        return os.path.join(self._target, relative) if relative else str(self._target)

    async def bring(self, entries: Sequence[RemoteEntry]) -> None:
        """Make the folders and bring the files; a failing one goes to the tally."""
        self._make_folders(entries)
        files = [e for e in entries if e.status.type is FileType.FILE and not self._is_there(e)]
        self._tally.progress.expect(len(files), sum(entry.status.length for entry in files))
        bulk = await self._calls.offers_bulk()
        small = [e for e in files if bulk and e.status.length <= SMALL_BYTES and self._is_plain(e)]
        together = {entry.relative for entry in small}
        work: list[Callable[[], Awaitable[None]]] = [
            partial(self._guarded, e) for e in files if e.relative not in together
        ]
        work += [partial(self._fetch, batch) for batch in _batches(small)]
        await work_off(self._transport, self._tally, work, lambda todo: todo())

    def _is_plain(self, entry: RemoteEntry) -> bool:
        try:
            return is_replaceable(self._path(entry.relative))
        except OSError:
            return False

    async def _guarded(self, entry: RemoteEntry) -> None:
        try:
            await self._bring_file(self._uri(entry.relative), entry.status, entry.relative)
        except ServerUnreachable:
            raise
        except PlatformError as error:
            self._fail(entry.relative, error)

    def _make_folders(self, entries: Sequence[RemoteEntry]) -> None:
        for relative in ("", *(e.relative for e in entries if e.status.type is FileType.DIRECTORY)):
            path = self._path(relative)
            try:
                os.makedirs(path, exist_ok=True)
                self._tally.progress.made(path)
            except OSError as error:
                if not relative:
                    raise local_fault(error, path) from None
                self._fail(relative, local_fault(error, path))

    def _fail(self, relative: str, error: PlatformError) -> None:
        self._tally.fail(str(self._uri(relative)), self._path(relative), error)

    def _is_there(self, entry: RemoteEntry) -> bool:
        return self._has(self._path(entry.relative), entry.status)

    def _has(self, path: str, remote: FileStatus) -> bool:
        if not (self._update or self._resume):
            return False
        try:
            local = os.stat(path)
        except OSError:
            return False
        newer_here = local.st_mtime + self._calls.clock.least > remote.modificationTime + 1
        same_size = local.st_size == remote.length
        if not newer_here or not (same_size or self._keep_newer):
            return False
        self._tally.leave(differs=not same_size)
        return True

    # One file

    async def bring_one(self, status: FileStatus) -> bool:
        """Bring the source itself to the target; False where it was here already. Raises."""
        if self._has(str(self._target), status):
            return False
        self._tally.progress.expect(1, status.length)
        await self._bring_file(self._source, status, "")
        return True

    async def _bring_file(self, uri: ResourceURI, status: FileStatus, relative: str) -> None:
        path = self._path(relative)
        key = f"{uri}\0{status.length}\0{status.modificationTime}"
        offset = min(draft_bytes(path, key), status.length) if self._resume else 0
        try:
            if is_replaceable(path):
                await self._into(uri, status, Draft(path, key, offset=offset))
            else:
                await self._into(uri, status, Stream(path))
        except OSError as error:
            raise local_fault(error, path) from error
        self._tally.copied(str(uri), path, status.length)

    async def _into(self, uri: ResourceURI, status: FileStatus, draft: Draft | Stream) -> None:
        try:
            self._tally.moved(draft.offset)
            retry = Retry(self._transport)
            version: str | None = None
            whole = status.length == draft.offset > 0
            while not whole:
                try:
                    version = await self._continue(uri, draft, version, status.length)
                    whole = True
                except (ServerUnreachable, Unavailable) as error:
                    await retry.after(error)
            draft.publish()
        except BaseException as error:
            if draft.offset >= KEEP_BYTES and not isinstance(error, StorageFault):
                draft.keep()
            else:
                draft.discard()
            raise

    async def _continue(
        self, uri: ResourceURI, draft: Draft | Stream, version: str | None, size: int
    ) -> str | None:
        request = await self._calls.open(uri, first=draft.offset, version=version)
        before = draft.offset
        async with self._calls.sending(request) as response:
            if before and response.status != 206:
                self._tally.moved(-before)
                draft.restart()
            version = response.headers.get("ETag")
            expected = _announced(response.headers.get("Content-Length"))
            begun = draft.offset
            if response.headers.get("X-Executable") == "true":
                draft.make_executable()
            async for chunk in response.chunks():
                draft.write(chunk)
                self._tally.moved(len(chunk))
            if expected is not None and draft.offset - begun != expected:
                raise Unavailable("The download broke off.")
        return version

    # Many files

    async def _fetch(self, batch: Sequence[RemoteEntry]) -> None:
        retry = Retry(self._transport)
        waiting = {entry.relative: entry for entry in batch}
        while waiting:
            request = await self._calls.fetch(self._source, list(waiting))
            intake = _Intake(self, waiting)
            try:
                async with self._calls.sending(request) as response:
                    async for chunk in response.chunks():
                        intake.feed(chunk)
                if not intake.ended:
                    raise Unavailable("The download broke off.")
                for relative in list(waiting):
                    intake.fault(relative, InvalidInput("The server left it out."))
                return
            except (ServerUnreachable, Unavailable) as error:
                await retry.after(error)
            finally:
                intake.close()

    def copied(self, entry: RemoteEntry) -> None:
        """A file of a stream is in its place."""
        path = self._path(entry.relative)
        self._tally.copied(str(self._uri(entry.relative)), path, entry.status.length)

    def draft(self, relative: str, executable: bool) -> Draft:
        """Where a file of a stream is written."""
        return Draft(self._path(relative), f"{os.getpid()}", executable=executable)

    def moved(self, count: int) -> None:
        self._tally.moved(count)

    def fail(self, relative: str, error: PlatformError) -> None:
        self._fail(relative, error)


class _Intake:
    """Writes the files of one stream; takes those off ``waiting`` that are settled."""

    def __init__(self, owner: Downloader, waiting: dict[str, RemoteEntry]) -> None:
        self._owner = owner
        self._waiting = waiting
        self._reader = FrameReader()
        self._draft: Draft | None = None
        self._path = ""

    @property
    def ended(self) -> bool:
        return self._reader.ended

    def feed(self, chunk: bytes) -> None:
        for frame in self._reader.feed(chunk):
            # Only what was asked for: a path in the stream is never trusted by itself.
            if frame.path not in self._waiting:
                continue
            try:
                done = self._take(frame)
            except OSError as error:
                self.fault(frame.path, local_fault(error, frame.path))
            else:
                if done:
                    self._owner.copied(self._waiting.pop(frame.path))

    def _take(self, frame: Frame) -> bool:
        """Whether a file is in its place now. Raises OSError."""
        if frame.kind == Kind.FAULT:
            fault = msgspec.json.decode(frame.data, type=FaultMessage)
            self.fault(frame.path, StorageFault(fault.errno or "EIO", fault.error))
        elif frame.kind == Kind.FILE:
            self.close()
            self._draft, self._path = self._owner.draft(frame.path, frame.executable), frame.path
            return self._write(frame)
        elif frame.kind == Kind.PART and frame.path == self._path:
            return self._write(frame)
        elif frame.kind == Kind.ABORT:
            self.close()
        return False

    def _write(self, frame: Frame) -> bool:
        if self._draft is None:
            return False
        for part in frame.parts:
            self._draft.write(part)
        self._owner.moved(frame.size)
        if frame.has_more:
            return False
        self._draft.publish()
        self._draft = None
        return True

    def fault(self, relative: str, error: PlatformError) -> None:
        self.close()
        del self._waiting[relative]
        self._owner.fail(relative, error)

    def close(self) -> None:
        if self._draft is not None:
            self._draft.discard()
            self._draft = None


def _batches(entries: Sequence[RemoteEntry]) -> Iterator[list[RemoteEntry]]:
    batch: list[RemoteEntry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.status.length
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _announced(header: str | None) -> int | None:
    return int(header) if header and header.isdigit() else None
