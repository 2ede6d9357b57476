"""Files and folders on this side: looking for what to send, and writing what came, whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import msgspec

from neuro.client.storage.filters import Filter, Rule, parse_ignore_file
from neuro.client.storage.transfer import local_fault
from neuro.domain.errors import InvalidInput

PART_SUFFIX = ".neuro-part"
# As many links behind one another as the kernel follows.
_MAX_LINKS = 40


class LocalFile(msgspec.Struct, frozen=True):
    """A file to send; ``relative`` to the top of the tree with ``/``, size in bytes."""

    path: str
    relative: str
    size: int
    modified: float
    executable: bool


class LocalFolder(msgspec.Struct, frozen=True):
    """A folder to make on the other side."""

    relative: str


class Odd(msgspec.Struct, frozen=True):
    """Something in the tree that cannot be sent. ``special``: a pipe, a socket or a device."""

    path: str
    relative: str
    why: str
    special: bool = False


def describe(path: Path, relative: str) -> LocalFile:
    """Raises StorageFault where there is no such file, or a folder (EISDIR)."""
    try:
        status = path.stat()
    except OSError as error:
        raise local_fault(error, path) from None
    if stat.S_ISDIR(status.st_mode):
        raise local_fault(IsADirectoryError(21, ""), path)
    return _file(str(path), relative, status)


def is_regular(path: str) -> bool:
    """Whether its size tells how much there is to read."""
    return stat.S_ISREG(os.stat(path).st_mode)


def _file(path: str, relative: str, status: os.stat_result) -> LocalFile:
    return LocalFile(
        path, relative, status.st_size, status.st_mtime, bool(status.st_mode & stat.S_IXUSR)
    )


def walk(
    top: Path, keep: Filter, ignore_files: Sequence[str] = ()
) -> Iterator[LocalFile | LocalFolder | Odd]:
    """Everything below ``top`` that the filter keeps, folders before what is in them.

    Links are followed, but not around in circles. ``ignore_files`` are names of files with
    patterns, read in every folder and in those above the top; the filter's own rules decide over
    them.
    """
    place = top_of(top)
    outer = _rules_above(top, ignore_files)
    yield from _walk(place.path, place.relative, outer, keep, ignore_files, (place.identity,))


def _walk(
    folder: str,
    relative: str,
    ignored: list[Rule],
    keep: Filter,
    ignore_files: Sequence[str],
    above: tuple[tuple[int, int], ...],
) -> Iterator[LocalFile | LocalFolder | Odd]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        yield Odd(folder, relative, os.strerror(error.errno or 0))
        return
    names = {entry.name for entry in entries}
    for name in ignore_files:
        if name in names:
            ignored = [*ignored, *_read_rules(Path(folder, name), base=relative)]
    rules = Filter([*ignored, *keep.rules])
    folders = []
    for entry in entries:
        path = f"{relative}/{entry.name}" if relative else entry.name
        found = look(entry, path, above)
        is_folder = isinstance(found, Below) or (isinstance(found, Odd) and _is_folder(entry))
        if rules and not rules.keeps(path, is_folder=is_folder):
            continue
        if isinstance(found, Below):
            folders.append(found)
        else:
            yield found
    for one in folders:
        yield LocalFolder(one.relative)
        inner = (*above, one.identity)
        yield from _walk(one.path, one.relative, ignored, keep, ignore_files, inner)


class Below(msgspec.Struct, frozen=True):
    """A folder to look into; ``identity`` is its device and number."""

    path: str
    relative: str
    identity: tuple[int, int]


def top_of(folder: Path) -> Below:
    """The top of a tree. Raises StorageFault where there is no such folder."""
    try:
        status = folder.stat()
    except OSError as error:
        raise local_fault(error, folder) from None
    if not stat.S_ISDIR(status.st_mode):
        raise local_fault(NotADirectoryError(20, ""), folder)
    return Below(str(folder), "", identity(status))


def look(
    entry: os.DirEntry[str], relative: str, above: Sequence[tuple[int, int]]
) -> LocalFile | Below | Odd:
    """What an entry of a folder is, behind links; ``above`` are the folders that it is in."""
    try:
        entry.name.encode()
        status = entry.stat()
    except OSError as error:
        dangling = error.errno == errno.ENOENT and os.path.islink(entry.path)
        why = (
            "the link is dangling: its target does not exist"
            if dangling
            else os.strerror(error.errno or 0)
        )
        return Odd(entry.path, relative, why)
    except UnicodeEncodeError:
        return Odd(entry.path, relative, "the name is not in UTF-8")
    if stat.S_ISREG(status.st_mode):
        return _file(entry.path, relative, status)
    if not stat.S_ISDIR(status.st_mode):
        return Odd(entry.path, relative, "it is neither a file nor a folder", special=True)
    if identity(status) in above:
        return Odd(entry.path, relative, "the link leads to a folder above it")
    return Below(entry.path, relative, identity(status))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def identity(status: os.stat_result) -> tuple[int, int]:
    """What tells a folder from every other one, whatever way leads there."""
    return status.st_dev, status.st_ino


def _rules_above(top: Path, ignore_files: Sequence[str]) -> list[Rule]:
    rules: list[Rule] = []
    if not ignore_files:
        return rules
    whole = top.resolve()
    for folder in reversed(whole.parents):
        outer = whole.relative_to(folder).as_posix()
        for name in ignore_files:
            with suppress(OSError):
                if (folder / name).is_file():
                    rules += _read_rules(folder / name, outer=outer)
    return rules


def _read_rules(path: Path, *, base: str = "", outer: str = "") -> list[Rule]:
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise local_fault(error, path) from None
    return parse_ignore_file(text, base=base, outer=outer)


class Draft:
    """A local file that is written under another name, and takes the target's place when whole.

    It lies beside the file that it replaces (behind links), and gets its owner and mode.
    """

    def __init__(self, target: str, key: str, *, offset: int = 0, executable: bool = False) -> None:
        """``key`` tells versions apart; ``offset`` bytes of the draft are kept. Raises OSError."""
        self._target = os.path.realpath(target)
        self.path = draft_path(self._target, key)
        replaced = _optional_status(self._target)
        mode = 0o777 if executable else 0o666
        if replaced is not None:
            mode = 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if offset else os.O_TRUNC)
        self._fd = os.open(self.path, flags, mode)
        try:
            if replaced is not None:
                self._resemble(replaced)
            if executable:
                self.make_executable()
            os.lseek(self._fd, offset, os.SEEK_SET)
        except BaseException:
            self.discard()
            raise
        self.offset = offset

    def _resemble(self, replaced: os.stat_result) -> None:
        if replaced.st_uid != os.geteuid():
            with suppress(OSError):  # Only root can give files away.
                os.fchown(self._fd, replaced.st_uid, replaced.st_gid)
        # Writing in place would take the set-user and set-group bits away, too.
        os.fchmod(self._fd, replaced.st_mode & 0o777)

    def write(self, data: bytes | memoryview) -> None:
        _write_all(self._fd, data)
        self.offset += len(data)

    def restart(self) -> None:
        """Forget what is there: the other side's file has changed."""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self.offset = 0

    def make_executable(self) -> None:
        """Make the file executable for everybody who may read it."""
        mode = stat.S_IMODE(os.fstat(self._fd).st_mode)
        os.fchmod(self._fd, mode | (mode & 0o444) >> 2)

    def publish(self) -> None:
        """Take the place of the target. Raises OSError."""
        self.keep()
        os.rename(self.path, self._target)

    def keep(self) -> None:
        """Stop writing; what is there can be continued."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Stop writing and forget it."""
        self.keep()
        with suppress(OSError):
            os.unlink(self.path)


class Stream:
    """A pipe, a terminal or a device that is written to: nothing can be renamed over it."""

    def __init__(self, target: str) -> None:
        """Raises OSError."""
        own = _own_descriptor(target)
        # Opened anew, a file behind standard output would be emptied, and a socket refused.
        self._fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC) if own is None else os.dup(own)
        self.offset = 0

    def write(self, data: bytes | memoryview) -> None:
        _write_all(self._fd, data)
        self.offset += len(data)

    def restart(self) -> None:
        """Raise InvalidInput: what was written cannot be taken back."""
        raise InvalidInput("The file was changed on the other side while it was being copied.")

    def make_executable(self) -> None:
        """Nothing: there is no file."""

    def publish(self) -> None:
        """Stop writing: all of it is there."""
        self.keep()

    def keep(self) -> None:
        """Stop writing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    discard = keep


def _write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _optional_status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def is_replaceable(path: str) -> bool:
    """Whether a file takes this place by a rename: a regular file is there, or nothing.

    Raises OSError, also for a folder.
    """
    status = _optional_status(path)
    if status is None:
        return True
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return stat.S_ISREG(status.st_mode) and _own_descriptor(path) is None


def _own_descriptor(path: str) -> int | None:
    """The descriptor of this process that /dev/stdout, /dev/fd/3 and links to them stand for."""
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder or ".")
        if folder == f"/proc/{os.getpid()}/fd" and name.isdecimal():
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:
            return None
    return None


def draft_path(target: str, key: str) -> str:
    """Where a draft waits: beside the file behind ``target``, hidden, with a short name."""
    folder, name = os.path.split(os.path.realpath(target))
    digest = blake2b(f"{name}\0{key}".encode("utf-8", "surrogateescape"), digest_size=8)
    return os.path.join(folder, f".{digest.hexdigest()}{PART_SUFFIX}")


def draft_bytes(target: str, key: str) -> int:
    """How much of a draft is there."""
    with suppress(OSError):
        return os.stat(draft_path(target, key)).st_size
    return 0
