"""Files of URLs in the cache of builds: one for each URL, held by the builds that use it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from neuro.engines.images import locks
from neuro.engines.images.locks import Lock
from neuro.engines.images.shelves import read_small

SHELF = "downloads"


class Kept(msgspec.Struct, frozen=True):
    """What is known of a URL: its content is in ``file``, a name on the same shelf."""

    file: str
    digest: str
    etag: str = ""
    modified: str = ""


class Unused(NamedTuple):
    """A file on the shelf: when it was used last, and its size in bytes."""

    used: float
    size: int
    file: str


def place(folder: str, file: str) -> str:
    """Where a file of the cache in ``folder`` is."""
    return f"{folder}/{SHELF}/{file}"


def hold(folder: str, file: str) -> Lock:
    """Keep a file, which is there or is being made, until the lock is closed. Raises OSError."""
    return locks.shared(_lock(folder, file))


def take(folder: str, file: str) -> Lock | None:
    """Hold a file and note that it is used now; None where it is gone. Raises OSError."""
    lock = hold(folder, file)
    try:
        os.utime(place(folder, file))
    except FileNotFoundError:
        lock.remove()
        return None
    except BaseException:
        lock.close()
        raise
    return lock


def listed(folder: str) -> Iterator[Unused]:
    """All files. One that no URL means any more counts as the oldest. Raises OSError."""
    names = os.listdir(f"{folder}/{SHELF}")
    records = {name: read_small(place(folder, name), Kept) for name in names if _is_record(name)}
    meant = {record.file for record in records.values() if record is not None}
    for name in names:
        if not _is_record(name):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(place(folder, name))
                yield Unused(found.st_mtime if name in meant else 0.0, found.st_size, name)


def remove(folder: str, file: str) -> bool:
    """Remove a file unless a build holds it; whether it went. Raises OSError."""
    lock = locks.alone_at_once(_lock(folder, file))
    if lock is None:
        return False
    with lock:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place(folder, file))
        lock.remove()
    return True


def forget(folder: str) -> None:
    """Remove what is known of URLs whose files are gone. Raises OSError.

    A build that fetches one anew meanwhile fetches it once more.
    """
    for name in os.listdir(f"{folder}/{SHELF}"):
        record = read_small(place(folder, name), Kept) if _is_record(name) else None
        if record is not None and not os.path.exists(place(folder, record.file)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place(folder, name))


def _is_record(name: str) -> bool:
    """Records are named by a digest of their URL, files by 16 random bytes."""
    return len(name) > 32


def _lock(folder: str, file: str) -> str:
    return f"{folder}/locks/file-{file}"
