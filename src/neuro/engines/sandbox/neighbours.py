"""Runs that reach each other: a number for each label, and the names under which they know them.

Runs with one label (their owner's name) are neighbours. The label's number is the group of their
interfaces, which the rules of the host compare; the file of the number is their ``/etc/hosts``::

    neighbours/lock               held while anything here changes
    neighbours/labels/<its hex>   a label's number
    neighbours/<number>/hosts     one line for each run: its address and its names
    neighbours/<number>/label     the label

All of it outlives the server, as the runs do. A number goes to another label only when all are
taken and no run of the first one is left.

The hosts file is mounted into running jobs, so it is never replaced, and no reader ever sees half
a line: a run that leaves has the first character of its line turned into ``#``, and a line may be
written over only while it begins so. What a crash left half written is taken away by whoever
changes the file next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain

from neuro.engines.sandbox import network
from neuro.engines.sandbox.network import GROUPS

NOBODY = 0  # the number of a run without neighbours

_HEAD = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9_-]{1,63})*")
_DRAFT = ".tmp"
_TAKEN = ("localhost", "ip6-localhost", "ip6-loopback")


def hosts_file(folder: str, number: int) -> str:
    """The path of the hosts file of the runs with this number."""
    return f"{_place(folder)}/{number:d}/hosts"


def number_of(folder: str, label: str) -> int:
    """The label's number, from 1; its hosts file is there. ``NOBODY`` for "" or when all are taken.

    The number is certain to stay the label's from ``announce`` to ``withdraw``. Raises OSError.
    """
    if not label:
        return NOBODY
    known = _known(folder, label)
    if known is not None:
        return known
    with _alone(folder):
        return _number(folder, label)


def announce(folder: str, label: str, address: str, names: Iterable[str]) -> int:
    """Tell a label's runs that one at ``address`` is reached under ``names``; the label's number.

    To be called before the run begins. Words that are not host names are left out. ``NOBODY`` and
    no line for the label "" and when all numbers are taken by labels with runs. Raises OSError.
    """
    if not label:
        return NOBODY
    good = [name for name in names if is_host_name(name)]
    line = f"{address}\t{' '.join(dict.fromkeys(good))}".encode()
    with _alone(folder):
        number = _number(folder, label)
        if number != NOBODY:
            _put(hosts_file(folder, number), line)
        return number


def withdraw(folder: str, number: int, address: str) -> None:
    """The run at ``address`` is over. Nothing where it was not announced. Raises OSError."""
    if number != NOBODY:
        with _alone(folder):
            _strike(hosts_file(folder, number), lambda text: _lines_of(text, address))


def release(folder: str, label: str) -> bool:
    """Give a label's number back where none of its runs is left; whether it is free now."""
    with _alone(folder):
        number = _known(folder, label)
        return number is None or _free(folder, number)


def sweep(folder: str) -> None:
    """Withdraw the runs whose networks are gone (their supervisors were killed). Raises OSError.

    To be called in the host's network. Drafts that a crash left behind are removed.
    """
    with _alone(folder):
        for number in _numbers(folder):
            _strike(hosts_file(folder, number), _gone)
        for name in ("labels", *map(str, _numbers(folder))):
            with os.scandir(f"{_place(folder)}/{name}") as entries:
                for entry in entries:
                    if entry.name.endswith(_DRAFT):
                        os.unlink(entry.path)


def is_host_name(name: str) -> bool:
    """Whether a run may be known by this name.

    >>> [is_host_name(name) for name in ("trainer", "job-1.platform-jobs", "a b", "localhost", "")]
    [True, True, False, False, False]
    """
    return len(name) <= 253 and bool(_NAME.fullmatch(name)) and name not in _TAKEN


# Numbers.


def _number(folder: str, label: str) -> int:
    """The label's number; it is taken now if it has none. To be called alone."""
    known = _known(folder, label)
    if known is not None:
        return known
    taken = set(_numbers(folder))
    choices = chain(
        # Labels may share a file, if they are long, and earlier versions named the files otherwise.
        (each for each in sorted(taken) if _belongs_to(folder, each, label)),
        (each for each in range(1, GROUPS) if each not in taken),
        (each for each in sorted(taken) if _free(folder, each)),
    )
    number = next(choices, NOBODY)
    if number != NOBODY:
        _take(folder, label, number)
    return number


def _take(folder: str, label: str, number: int) -> None:
    place = f"{_place(folder)}/{number}"
    os.makedirs(place, mode=0o755, exist_ok=True)
    _write(f"{place}/label", label.encode())
    path = hosts_file(folder, number)
    with open(path, "ab") as file:
        os.fchmod(file.fileno(), 0o644)  # jobs read it, whichever user they are
    with _opened(path):
        pass  # it has its head now
    _write(_label_file(folder, label), str(number).encode())


def _free(folder: str, number: int) -> bool:
    """Give a number back where no run is announced under it."""
    place = f"{_place(folder)}/{number}"
    try:
        with _opened(hosts_file(folder, number)) as (_, text):
            if any(_addresses(text)):
                return False
    except FileNotFoundError:
        pass  # a crash left half of it
    for name in ("label", f"label{_DRAFT}", "hosts"):
        with suppress(FileNotFoundError):
            os.unlink(f"{place}/{name}")
    os.rmdir(place)
    return True


def _known(folder: str, label: str) -> int | None:
    """The number that was the label's last, if it is still."""
    try:
        with open(_label_file(folder, label), "rb") as file:
            number = int(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return number if _belongs_to(folder, number, label) else None


def _belongs_to(folder: str, number: int, label: str) -> bool:
    try:
        with open(f"{_place(folder)}/{number}/label", "rb") as file:
            return file.read() == label.encode()
    except FileNotFoundError:
        return False


def _numbers(folder: str) -> list[int]:
    return [int(name) for name in os.listdir(_place(folder)) if name.isdigit()]


# Lines.


def _put(path: str, line: bytes) -> None:
    """Write a line over one that is struck out, or at the end; its first character comes last."""
    with _opened(path) as (fd, text):
        start, length = next(
            ((start, end - start) for start, end in _struck(text) if end - start >= len(line)),
            (len(text), len(line)),
        )
        if start == len(text):
            _write_at(fd, b"#" + line[1:] + b"\n", start)
        else:
            _write_at(fd, line[1:].ljust(length - 1), start + 1)
        _write_at(fd, line[:1], start)


def _strike(path: str, choose: Callable[[bytes], Iterable[int]]) -> None:
    """Strike out the lines that begin where ``choose`` says."""
    try:
        with _opened(path) as (fd, text):
            for start in choose(text):
                _write_at(fd, b"#", start)
    except FileNotFoundError:
        return


def _lines_of(text: bytes, address: str) -> Iterator[int]:
    wanted = f"\n{address}\t".encode()
    start = text.find(wanted, len(_HEAD) - 1)
    while start != -1:
        yield start + 1
        start = text.find(wanted, start + 1)


def _gone(text: bytes) -> Iterator[int]:
    return (start for address, start in _addresses(text) if not network.exists(address))


def _addresses(text: bytes) -> Iterator[tuple[str, int]]:
    """The address of each line that is in force, and where the line begins."""
    start = len(_HEAD)
    for line in text[start:].splitlines(keepends=True):
        if line[:1].isdigit():
            yield line.partition(b"\t")[0].decode("ascii", "replace"), start
        start += len(line)


def _struck(text: bytes) -> Iterator[tuple[int, int]]:
    start = text.find(b"\n#")
    while start != -1:
        end = text.find(b"\n", start + 1)
        if end == -1:
            return
        yield start + 1, end
        start = text.find(b"\n#", end)


@contextmanager
def _opened(path: str) -> Iterator[tuple[int, bytes]]:
    """A hosts file and what is in it, whole lines only. To be called alone."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        text = os.pread(fd, os.fstat(fd).st_size, 0)
        if len(text) < len(_HEAD):
            _write_at(fd, _HEAD, 0)
            text = _HEAD
        elif not text.endswith(b"\n"):
            text = text[: text.rfind(b"\n") + 1]
            os.ftruncate(fd, len(text))
        yield fd, text
    finally:
        os.close(fd)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    """All of it. Raises OSError."""
    if os.pwrite(fd, data, offset) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Files.


def _place(folder: str) -> str:
    return f"{folder}/neighbours"


def _label_file(folder: str, label: str) -> str:
    return f"{_place(folder)}/labels/{label.encode().hex()[:200]}"


def _write(path: str, text: bytes) -> None:
    temporary = f"{path}{_DRAFT}"
    with open(temporary, "wb") as file:
        file.write(text)
    os.rename(temporary, path)


@contextmanager
def _alone(folder: str) -> Iterator[None]:
    """Nobody else changes anything here meanwhile."""
    path = f"{_place(folder)}/lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        lock = os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(f"{_place(folder)}/labels", mode=0o755, exist_ok=True)
        lock = os.open(path, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
