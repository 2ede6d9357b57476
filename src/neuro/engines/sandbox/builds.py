"""Caches of builds: a folder for each owner, which outlives the jobs that build images.

What is before a key's first ``-`` says whose share of the room it is: a person has one share, with
all their accounts.

A job's users own what is in it by an id-mapped mount, so on the disk files belong to the users that
an image gives them to, root and setuid ones among them: the folder of all is closed to everybody
else. A build holds its cache by a lock that its supervisor takes; what nobody holds may be removed.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable

from neuro.engines.images import locks
from neuro.engines.sandbox.disk import EVERYTHING, Census

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
OF_ACCOUNT = "-"  # after a person's key, in those of their accounts
_SLICE = 1.0  # seconds of counting between two looks at whether to go on


class Builds:
    """The caches below ``folder``. All of it blocks."""

    def __init__(self, folder: str, owner: int | None = None) -> None:
        """``owner`` is the user of the machine that all runs are, where they are one."""
        self._folder = f"{folder}/builds"
        self._trash = f"{folder}/trash"
        self._owner = owner
        self._sizes: dict[str, tuple[int, int]] = {}  # when it was used last, and what it took

    def take(self, key: str) -> tuple[str, str]:
        """The cache of this key, made if it is not there, and the file of its lock.

        Raises ValueError for what can be no key, OSError.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} cannot name the cache of a build")
        os.makedirs(self._folder, 0o700, exist_ok=True)
        os.chmod(self._folder, 0o700)
        folder, lock = f"{self._folder}/{key}", self._lock(key)
        with locks.shared(lock):  # nobody removes it meanwhile
            try:
                os.mkdir(folder, 0o700)
            except FileExistsError:
                pass
            else:
                if self._owner is not None:
                    os.chown(folder, self._owner, self._owner)
            os.utime(lock)
        return folder, lock

    def sweep(self, most: int, is_over: Callable[[], bool] = lambda: False) -> int:
        """Remove caches until all take no more than ``most`` bytes: of the person who has most.

        Of theirs that goes first which was not used for longest. Bytes that are left. One that a
        build has stays. ``is_over`` says that nobody waits for the rest. Raises OSError.
        """
        sizes: dict[str, int] = {}
        people: dict[str, list[str]] = {}  # the keys of each, the one that was used last comes last
        for used, key in sorted(self._caches()):
            sizes[key] = self._size(key, used, is_over)
            people.setdefault(_person(key), []).append(key)
        shares = {person: sum(sizes[key] for key in keys) for person, keys in people.items()}
        total = sum(shares.values())
        while people and total > most and not is_over():
            # Nobody's builds take away what others have: not those who have less.
            person = max(people, key=lambda one: shares[one])
            key = people[person].pop(0)
            if not people[person]:
                del people[person]
            if self._remove(key):
                total -= sizes[key]
                shares[person] -= sizes[key]
        return total

    def _caches(self) -> list[tuple[int, str]]:
        """When each was used last, and its key."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        found = []
        for key in names:
            if os.path.isdir(f"{self._folder}/{key}"):
                try:
                    used = os.stat(self._lock(key)).st_mtime_ns
                except FileNotFoundError:
                    used = 0
                found.append((used, key))
        return found

    def _size(self, key: str, used: int, is_over: Callable[[], bool]) -> int:
        """The bytes of a cache; counted anew only while a build has it, and once after."""
        lock = locks.alone_at_once(self._lock(key))
        is_free = lock is not None
        if lock is not None:
            lock.close()  # counting may take long, and no build waits for that
        known = self._sizes.get(key)
        if known is not None and known[0] == used and is_free:
            return known[1]
        census = Census(f"{self._folder}/{key}", EVERYTHING)
        while not census.step(_SLICE):
            if is_over():
                census.close()
                break
        else:
            # What a build is still writing is counted again. One that comes meanwhile uses it anew.
            self._sizes[key] = (used if is_free else -1), census.use.bytes
        return census.use.bytes

    def _remove(self, key: str) -> bool:
        lock = locks.alone_at_once(self._lock(key))
        if lock is None:
            return False
        with lock:
            os.makedirs(self._trash, exist_ok=True)
            os.rename(f"{self._folder}/{key}", f"{self._trash}/build-{secrets.token_hex(8)}")
            lock.remove()
            self._sizes.pop(key, None)
        return True

    def _lock(self, key: str) -> str:
        return f"{self._folder}/{key}.lock"


def _person(key: str) -> str:
    """Whose share the cache of a key is counted for."""
    return key.partition(OF_ACCOUNT)[0]
