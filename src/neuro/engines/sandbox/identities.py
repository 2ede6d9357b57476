"""Which users of the machine the jobs of a root server are: a block of ids for each run.

User 0 of a run is an unprivileged user of the machine that nobody else is. What runs write to the
storage belongs to one more such user, whichever run wrote it: the storage's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import struct
from collections.abc import Callable, Iterable

from neuro.engines.sandbox import kernel

FIRST = 0x7000_0000  # above what directory services and containers give away
BLOCK = 1 << 16
_COUNT = 0x0FFF  # blocks; the last one is the storage's
# Nobody's files, so it reads what everybody may read. It is the last id of the storage's block.
READER = FIRST + (_COUNT + 1) * BLOCK - 1
STORAGE = FIRST + _COUNT * BLOCK

_LOCKS = ("/run/neuro-ids.lock", "ids.lock")
_LOCK = struct.Struct("hhqqi4x")  # struct flock
_TRIES = 8  # known blocks to look at before a new one is taken into use


class Block:
    """The ids of one run, held until its supervisor, which keeps ``lock`` open, is gone.

    ``base`` is user 0 of the run, ``users`` a user namespace with its users. ``volumes`` is one in
    which the storage's user is the run's user 0; None where no mapping is needed. ``stage`` is what
    its runs see of the machine (see ``stage``). A run of a plain user's server is that user: its
    block has no ids.
    """

    def __init__(
        self,
        stage: int,
        *,
        base: int = 0,
        users: int = -1,
        volumes: int | None = None,
        lock: int | None = None,
    ) -> None:
        self.stage = stage
        self.base = base
        self.users = users
        self.volumes = volumes
        self._lock = lock

    def give(self, path: str) -> None:
        """Let a file or folder of ours belong to user 0 of the run. Raises OSError."""
        if self.base:
            os.chown(path, self.base, self.base, follow_symlinks=False)

    def give_pipes(self, descriptors: Iterable[int]) -> None:
        """Let the pipes among what is open belong to user 0 of the run. Raises OSError.

        Else it could not open /dev/stdout, which leads to one.
        """
        if self.base:
            for fd in descriptors:
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.fchown(fd, self.base, self.base)

    def release(self) -> None:
        """Our part of the lock: a process that was forked meanwhile keeps its own."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


Prepare = Callable[[int | None, int | None], int]


class Blocks:
    """Gives out blocks; two engines on one machine never give the same."""

    def __init__(self, folder: str, prepare: Prepare, *, plain: bool, shared: bool) -> None:
        """``prepare`` makes a stage for runs with these users (see ``stage.prepare``).

        ``plain``: every run is who runs the server. ``shared``: every run is the storage's user,
        where file systems cannot map users.
        """
        self._folder = folder
        self._prepare = prepare
        self._plain = plain
        self._shared = shared
        self._same: Block | None = None
        self._known: list[int] = []
        self._made: dict[int, tuple[int, int, int]] = {}
        self._next = 0

    def claim(self) -> Block:
        """A block that no other run has. Raises OSError."""
        if self._plain or self._shared:
            self._same = self._same or self._block_of_all()
            return self._same
        file = self._open()
        try:
            return self._claim(file)
        except OSError:
            os.close(file)
            raise

    def _claim(self, file: int) -> Block:
        for _ in range(min(len(self._known), _TRIES)):
            number = self._known[self._next % len(self._known)]
            self._next += 1
            if _locked(file, number):
                return self._block(number, file)
        for number in range(_COUNT):
            if _locked(file, number):
                return self._block(number, file)
        raise OSError(errno.EUSERS, f"all {_COUNT} blocks of user ids are taken by jobs")

    def close_others(self, mine: Block) -> None:
        """In a process forked for one run: let go of what belongs to the blocks of others."""
        for made in self._made.values():
            if made[0] != mine.stage:
                for descriptor in made:
                    os.close(descriptor)
        self._made.clear()

    def _block_of_all(self) -> Block:
        if self._plain:
            return Block(self._prepare(None, None))
        users = user_namespace(f"0 {STORAGE} {BLOCK}")
        try:
            return Block(self._prepare(users, None), base=STORAGE, users=users)
        except OSError:
            os.close(users)
            raise

    def _block(self, number: int, lock: int) -> Block:
        if number not in self._made:
            self._made[number] = self._make(number)
            self._known.append(number)
        stage, users, volumes = self._made[number]
        base = FIRST + number * BLOCK
        return Block(stage, base=base, users=users, volumes=volumes, lock=lock)

    def _make(self, number: int) -> tuple[int, int, int]:
        base = FIRST + number * BLOCK
        users = user_namespace(f"0 {base} {BLOCK}")
        try:
            volumes = user_namespace(f"{STORAGE} {base} {BLOCK}")
            try:
                return self._prepare(users, users), users, volumes
            except OSError:
                os.close(volumes)
                raise
        except OSError:
            os.close(users)
            raise

    def _open(self) -> int:
        for name in _LOCKS:
            path = os.path.join(self._folder, name)
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError:
                if name == _LOCKS[-1]:
                    raise
        raise AssertionError("unreachable")


def _locked(file: int, number: int) -> bool:
    request = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
    except OSError:
        return False
    return True


def user_namespace(mapping: str) -> int:
    """A descriptor of a user namespace with such users, which has no process. Raises OSError."""
    pid = kernel.clone(kernel.CLONE_NEWUSER)
    if pid == 0:
        kernel.die_with_parent()
        while True:
            signal.pause()
    try:
        kernel.map_ids(pid, mapping)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # where SIGCHLD is ignored, this is how waiting ends
