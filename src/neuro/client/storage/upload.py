"""Sending files: many small ones in one stream, a large one in pieces that can be continued."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import BinaryIO

from neuro.client.storage.calls import Calls
from neuro.client.storage.local import LocalFile, LocalFolder, is_regular
from neuro.client.storage.remote import index, optional_status
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
from neuro.domain.errors import AlreadyExists, InvalidInput, PlatformError, StorageFault
from neuro.domain.frames import (
    END,
    HEADER_BYTES,
    PIECE_BYTES,
    FaultMessage,
    Flag,
    Kind,
    encode_frame,
    encode_head,
)
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import ResourceURI

# Small files are gathered to one write of the socket.
_WRITE_BYTES = 256 << 10


class Uploader:
    """Sends files of this machine below one folder of the storage."""

    def __init__(
        self,
        calls: Calls,
        transport: Transport,
        target: ResourceURI,
        tally: Tally,
        *,
        update: bool = False,
        resume: bool = False,
    ) -> None:
        """``update`` skips files of the same size that are not newer here.

        ``resume`` goes on with what broke off.
        """
        self._calls = calls
        self._transport = transport
        self._target = target
        self._tally = tally
        self._update = update
        self._resume = resume

    def _uri(self, relative: str) -> ResourceURI:
        return self._target.child(*relative.split("/")) if relative else self._target

    def _told(self, relative: str) -> str:
        return str(self._uri(relative))

    async def send(self, folders: Sequence[LocalFolder], files: Sequence[LocalFile]) -> None:
        """Make the folders and send the files, ``relative`` below the target.

        A failing file goes to the tally; raises for errors that stop everything.
        """
        if self._update or self._resume:
            there = await index(self._calls, self._target, {folder.relative for folder in folders})
            files = [file for file in files if not self._is_there(file, there.get(file.relative))]
        self._tally.progress.expect(len(files), sum(file.size for file in files))
        if not await self._calls.offers_bulk():
            await self._send_singly(folders, files)
            return
        await self._make_in_bulk(folders)
        small = [file for file in files if file.size <= SMALL_BYTES]
        large = [file for file in files if file.size > SMALL_BYTES]
        work: list[list[LocalFile]] = [[file] for file in large]
        work += _batches(small)
        await work_off(self._transport, self._tally, work, self._handle)

    async def _handle(self, batch: list[LocalFile]) -> None:
        if batch[0].size > SMALL_BYTES:
            await self._guarded(batch[0])
        else:
            await self._send_batch(batch)

    async def _guarded(self, file: LocalFile) -> None:
        try:
            await self._send_file(file)
        except ServerUnreachable:
            raise
        except PlatformError as error:
            self._tally.fail(file.path, self._told(file.relative), error)

    def _is_there(self, file: LocalFile, there: FileStatus | None) -> bool:
        if there is None or there.type is not FileType.FILE:
            return False
        if there.length != file.size or not self._is_newer(there, file):
            return False
        self._tally.leave()
        return True

    def _is_newer(self, there: FileStatus, file: LocalFile) -> bool:
        return file.modified + self._calls.clock.most < there.modificationTime

    # One file

    async def send_one(self, file: LocalFile) -> bool:
        """Send one file to the target itself; False where it was there already. Raises."""
        there = None
        if self._update or self._resume:
            there = await optional_status(self._calls, self._target)
            if self._is_there(file, there):
                return False
        self._tally.progress.expect(1, file.size)
        await self._send_file(file, there)
        return True

    async def _send_file(self, file: LocalFile, there: FileStatus | None = None) -> None:
        uri = self._uri(file.relative)
        try:
            with open(file.path, "rb", buffering=0) as source:
                if there is not None and await self._is_half(uri, file, there, source):
                    await self._write_pieces(uri, source, there.length)
                elif is_regular(file.path) and await self._calls.offers_bulk():
                    await self._upload(uri, file, source)
                else:
                    await self._write_pieces(uri, source, 0)
        except OSError as error:
            raise local_fault(error, file.path) from error
        self._tally.copied(file.path, str(uri), file.size)

    async def _is_half(
        self, uri: ResourceURI, file: LocalFile, there: FileStatus, source: BinaryIO
    ) -> bool:
        """Whether ``there`` is another client's upload of this file that broke off."""
        if not self._resume or there.type is not FileType.FILE or there.length >= file.size:
            return False
        if not there.length or not self._is_newer(there, file):
            return False
        # A complete file that is shorter looks alike but for its content.
        request = await self._calls.open(uri, first=0, end=there.length)
        left = there.length
        try:
            async with self._calls.sending(request) as response:
                async for chunk in response.chunks():
                    if source.read(len(chunk)) != chunk:
                        return False
                    left -= len(chunk)
            return left == 0
        finally:
            source.seek(0)

    async def _upload(self, uri: ResourceURI, file: LocalFile, source: BinaryIO) -> None:
        key = f"{os.path.abspath(file.path)}\0{uri}\0{file.size}\0{file.modified}"
        upload_id = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        retry = Retry(self._transport)
        offset = await self._calls.upload_offset(uri, upload_id) if self._resume else 0
        self._tally.moved(offset)
        while True:
            body = _Pieces(source, offset, file, self._tally)
            try:
                await self._calls.upload(
                    uri,
                    upload_id,
                    size=file.size,
                    offset=offset,
                    executable=file.executable,
                    body=body,
                    length=body.length,
                )
                return
            except PlatformError as error:
                if body.error is not None:
                    raise body.error from None
                await retry.after(error)
            arrived = await self._arrived(uri, upload_id, retry)
            if arrived > offset:
                retry.progressed()
            self._tally.moved(arrived - offset - body.sent)
            offset = arrived

    async def _arrived(self, uri: ResourceURI, upload_id: str, retry: Retry) -> int:
        while True:
            try:
                return await self._calls.upload_offset(uri, upload_id)
            except PlatformError as error:
                await retry.after(error)

    async def _write_pieces(self, uri: ResourceURI, source: BinaryIO, offset: int) -> None:
        # The reference's way: for its servers, for streams without a size, and to go on where
        # another client stopped.
        if offset:
            source.seek(offset)
            self._tally.moved(offset)
        else:
            piece = source.read(PIECE_BYTES)
            await self._calls.create(uri, piece)
            self._tally.moved(len(piece))
            offset = len(piece)
        retry = Retry(self._transport)
        while piece := source.read(PIECE_BYTES):
            while True:
                try:
                    await self._calls.write(uri, piece, offset)
                    break
                except PlatformError as error:
                    await retry.after(error)
            retry.progressed()
            self._tally.moved(len(piece))
            offset += len(piece)

    async def _send_singly(
        self, folders: Sequence[LocalFolder], files: Sequence[LocalFile]
    ) -> None:
        for folder in ("", *(folder.relative for folder in folders)):
            await self._calls.make_folders(self._uri(folder))
            self._tally.progress.made(self._told(folder))
        await work_off(self._transport, self._tally, files, self._guarded)

    # Many files

    async def _make_in_bulk(self, folders: Sequence[LocalFolder]) -> None:
        body = [encode_frame(Kind.FOLDER, folder.relative) for folder in folders]
        faults = await self._bulk(lambda: iter([b"".join([*body, END])]))
        for fault in faults:
            self._tally.fail(fault.path, self._told(fault.path), _error_of(fault))
        failed = {fault.path for fault in faults}
        for folder in folders:
            if folder.relative not in failed:
                self._tally.progress.made(self._told(folder.relative))

    async def _send_batch(self, batch: Sequence[LocalFile]) -> None:
        stream = _Stream(batch, self._tally)
        faults = {fault.path: fault for fault in await self._bulk(stream.frames)}
        for file in batch:
            error = stream.failed.get(file.relative)
            if error is None and file.relative in faults:
                error = _error_of(faults[file.relative])
            if error is not None:
                self._tally.fail(file.path, self._told(file.relative), error)
            else:
                self._tally.copied(file.path, self._told(file.relative), file.size)

    async def _bulk(self, frames: Callable[[], Iterator[bytes]]) -> list[FaultMessage]:
        # Nothing is lost by sending a batch twice: each file is written whole either way.
        retry = Retry(self._transport)
        while True:
            try:
                faults, _ = await self._calls.bulk(self._target, frames())
                return faults
            except PlatformError as error:
                await retry.after(error)


def _batches(files: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.size
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _error_of(fault: FaultMessage) -> PlatformError:
    if fault.errno == "EEXIST":
        return AlreadyExists(fault.error)
    return StorageFault(fault.errno, fault.error) if fault.errno else InvalidInput(fault.error)


class _Pieces:
    """The body of one large file's upload from an offset on, as an iterable of frames."""

    def __init__(self, source: BinaryIO, offset: int, file: LocalFile, tally: Tally) -> None:
        self._source = source
        self._offset = offset
        self._file = file
        self._tally = tally
        self.sent = 0
        self.error: PlatformError | None = None
        left = file.size - offset
        self.length = left + (-(-left // PIECE_BYTES) + 1) * HEADER_BYTES

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._frames()
        except PlatformError as error:
            self.error = error  # The transport may wrap it in words of its own.
            raise

    def _frames(self) -> Iterator[bytes]:
        left = self._file.size - self._offset
        try:
            self._source.seek(self._offset)
            while left > 0:
                data = self._source.read(min(PIECE_BYTES, left))
                if len(data) < min(PIECE_BYTES, left):
                    raise InvalidInput(f"'{self._file.path}' changed while it was read.")
                left -= len(data)
                yield encode_head(Kind.PART, "", data, Flag.MORE if left else Flag.NONE)
                yield data
                self.sent += len(data)
                self._tally.moved(len(data))
        except OSError as error:
            raise local_fault(error, self._file.path) from error
        yield END


class _Stream:
    """The body of a bulk upload; may be made again for another try."""

    def __init__(self, files: Sequence[LocalFile], tally: Tally) -> None:
        self._files = files
        self._tally = tally
        self._sent = 0
        self.failed: dict[str, PlatformError] = {}

    def frames(self) -> Iterator[bytes]:
        self._tally.moved(-self._sent)
        self._sent = 0
        self.failed.clear()
        pending: list[bytes] = []
        size = moved = 0
        for file in self._files:
            for frame, length in self._frames_of(file):
                pending.append(frame)
                size += len(frame)
                moved += length
                if size >= _WRITE_BYTES:
                    yield b"".join(pending)
                    self._moved(moved)
                    pending, size, moved = [], 0, 0
        yield b"".join((*pending, END))
        self._moved(moved)

    def _moved(self, count: int) -> None:
        self._sent += count
        self._tally.moved(count)

    def _frames_of(self, file: LocalFile) -> Iterator[tuple[bytes, int]]:
        flag = Flag.EXECUTABLE if file.executable else Flag.NONE
        kind = Kind.FILE
        try:
            fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(fd, PIECE_BYTES)
                while True:
                    after = os.read(fd, PIECE_BYTES) if len(data) == PIECE_BYTES else b""
                    flags = flag | (Flag.MORE if after else Flag.NONE)
                    yield encode_frame(kind, file.relative, data, flags), len(data)
                    if not after:
                        return
                    kind, data = Kind.PART, after
            finally:
                os.close(fd)
        except OSError as error:
            self.failed[file.relative] = local_fault(error, file.path)
            if kind is Kind.PART:
                yield encode_frame(Kind.ABORT, file.relative), 0
