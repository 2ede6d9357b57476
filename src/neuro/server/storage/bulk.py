"""Many files in one request, in and out (frames: ``neuro.domain.frames``).

Measured with 10,000 files of 1 KB: a request per file costs more than the file itself; one stream
leaves only what the disk needs. Nothing is flushed file by file: like ``cp``, a bulk copy is on the
disk when the system writes it back, and every file is there whole or not at all.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import msgspec

from neuro.domain.errors import InvalidInput, PlatformError, StorageFault
from neuro.domain.frames import (
    END,
    PIECE_BYTES,
    BulkSummary,
    FaultMessage,
    Flag,
    Frame,
    FrameReader,
    Kind,
    encode_frame,
)
from neuro.server.storage.confine import Place
from neuro.server.storage.faults import fault_of, faults
from neuro.server.storage.paths import STAGING, parse_relative
from neuro.server.storage.staging import StagedFile, Staging, publish
from neuro.server.storage.tree import Tree

# Folders of the stream that are kept open; files come folder by folder.
_OPEN_FOLDERS = 16
# So many files are looked up at once, before others have their turn in the threads.
_FILES_AT_ONCE = 64
# So many faults are told one by one; the summary counts all.
MAX_TOLD_FAULTS = 10_000

_EXECUTABLE_BITS = 0o111


class BulkIntake:
    """Writes the files of one stream below one folder. Not for several threads at once."""

    def __init__(self, tree: Tree, staging: Staging, place: Place) -> None:
        self._tree = tree
        self._place = place
        self._reader = FrameReader()
        self._folders: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._faults: list[FaultMessage] = []
        self._failed = self._files = self._made = self._bytes = 0
        self._current: tuple[str, StagedFile] | None = None
        self._room = staging.open(place.segments[0])

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Take the next bytes of the stream. Raises InvalidInput for a damaged one."""
        for piece in pieces:
            for frame in self._reader.feed(piece):
                try:
                    self._take(frame)
                except PlatformError as error:
                    self._fail(frame.path, error)
                except OSError as error:
                    self._fail(frame.path, fault_of(error, frame.path))

    def finish(self) -> list[bytes]:
        """The answer's lines: what failed, and a summary. Raises InvalidInput without an END."""
        if not self._reader.ended:
            raise InvalidInput("The stream of files broke off.")
        summary = BulkSummary(self._files, self._made, self._bytes, self._failed)
        return [msgspec.json.encode(line) for line in (*self._faults, summary)]

    def close(self) -> None:
        """Let go of everything; a file that was not whole is forgotten."""
        self._drop_current()
        for folder in self._folders.values():
            os.close(folder)
        self._folders.clear()
        os.close(self._room)

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.FILE:
            self._drop_current()
            self._begin(frame)
        elif frame.kind == Kind.PART:
            self._append(frame)
        elif frame.kind == Kind.FOLDER:
            self._tree.make_folders(self._inside(parse_relative(frame.path)))
            self._made += 1
        elif frame.kind == Kind.ABORT:
            self._drop_current()

    def _begin(self, frame: Frame) -> None:
        segments = parse_relative(frame.path)
        folder = self._folder(segments[:-1])
        file = StagedFile.fresh(self._room, executable=frame.executable)
        try:
            file.write(frame.parts)
            if frame.has_more:
                self._current = (frame.path, file)
                return
            publish(self._tree, file, self._inside(segments), folder, durable=False)
        except BaseException:
            file.discard()
            raise
        self._count(frame.size)

    def _append(self, frame: Frame) -> None:
        if self._current is None or self._current[0] != frame.path:
            return  # The rest of a file that has failed already.
        path, file = self._current
        try:
            file.write(frame.parts)
            if frame.has_more:
                return
            segments = parse_relative(path)
            size = file.offset
            folder = self._folder(segments[:-1])
            publish(self._tree, file, self._inside(segments), folder, durable=False)
            self._current = None
        except BaseException:
            self._drop_current()
            raise
        self._count(size)

    def _drop_current(self) -> None:
        if self._current is not None:
            self._current[1].discard()
            self._current = None

    def _count(self, size: int) -> None:
        self._files += 1
        self._bytes += size

    def _fail(self, path: str, error: PlatformError) -> None:
        self._failed += 1
        if len(self._faults) < MAX_TOLD_FAULTS:
            symbol = error.errno if isinstance(error, StorageFault) else None
            self._faults.append(FaultMessage(path, error.message, symbol))

    def _inside(self, segments: tuple[str, ...]) -> Place:
        place = self._place.child(*segments)
        if len(place.segments) > 1 and place.segments[1] == STAGING:
            raise InvalidInput(
                f"'{STAGING}' is reserved for unfinished uploads: choose another name."
            )
        return place

    def _folder(self, segments: tuple[str, ...]) -> int:
        if segments in self._folders:
            self._folders.move_to_end(segments)
            return self._folders[segments]
        place = self._inside(segments)
        try:
            self._tree.make_folders(place)
        except StorageFault as fault:
            if fault.errno != "EEXIST":
                raise
            raise StorageFault("ENOTDIR", fault.message) from None
        with self._tree.opened(place, os.O_PATH | os.O_DIRECTORY) as found:
            self._folders[segments] = os.dup(found)
        if len(self._folders) > _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        return self._folders[segments]


def outgoing(tree: Tree, place: Place, paths: Sequence[str]) -> Iterator[bytes]:
    """The frames of files below a folder, in batches of about a megabyte or less."""
    batch: list[bytes] = []
    size = 0
    for count, path in enumerate(paths, 1):
        for frame in _frames_of(tree, place, path):
            batch.append(frame)
            size += len(frame)
            if size >= PIECE_BYTES:
                yield b"".join(batch)
                batch, size = [], 0
        if batch and count % _FILES_AT_ONCE == 0:
            yield b"".join(batch)
            batch, size = [], 0
    yield b"".join((*batch, END))


def _frames_of(tree: Tree, place: Place, path: str) -> Iterator[bytes]:
    began = False
    try:
        source = place.child(*parse_relative(path))
        fd, status = tree.open_file(source)
        try:
            executable = status.st_mode & _EXECUTABLE_BITS
            flags = Flag.EXECUTABLE if executable else Flag.NONE
            with faults(source.path):
                for kind, data, more in _pieces(fd):
                    yield encode_frame(kind, path, data, flags | (Flag.MORE if more else 0))
                    began = True
        finally:
            os.close(fd)
    except PlatformError as error:
        if began:
            yield encode_frame(Kind.ABORT, path)
        symbol = error.errno if isinstance(error, StorageFault) else None
        if error.status == 404:
            symbol = errno.errorcode[errno.ENOENT]
        message = FaultMessage(path, error.message, symbol)
        yield encode_frame(Kind.FAULT, path, msgspec.json.encode(message))


def _pieces(fd: int) -> Iterator[tuple[Kind, bytes, bool]]:
    kind = Kind.FILE
    data = os.read(fd, PIECE_BYTES)
    while True:
        following = os.read(fd, PIECE_BYTES) if len(data) == PIECE_BYTES else b""
        yield kind, data, bool(following)
        if not following:
            return
        kind, data = Kind.PART, following
