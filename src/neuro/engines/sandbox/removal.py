"""Removing what a job made, whatever it is: by descriptors, without recursion, following no link.

A job may nest thousands of folders, so that no path reaches the last one, or put a hundred thousand
beside each other, or close them. One descriptor is open at a time, and memory stays small: of each
folder on the way down two numbers are kept, and the way up is ``..``, believed only where it leads
to the folder that we came from. No mount is entered.

The server's storage has a removal of its own (``storage.removal``): it tells clients what is gone,
and where a folder was moved it finds its way from the top, because jobs write there meanwhile.
Nobody writes to these.
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable

from neuro.engines.sandbox import kernel

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_PENDING = 4096  # names of folders that are kept in memory at once
_KNOWN = 64  # folders on the way down whose names are kept: more are seldom, and may be very many
_MOST_REFUSED = 10_000  # things that cannot be removed, until the rest is given up
_EXAMPLES = 3
_BREATH = 256  # entries between two looks at whether to stop


class NotRemoved(OSError):
    """Some things in a tree cannot be removed; the rest is gone."""


class Stopped(Exception):
    """The removal was told to stop before its end."""


class Descent:
    """A folder that is open, the ones above it by their numbers: down by a name, up by ``..``."""

    def __init__(self, folder: int, name: str, *, opening_up: bool = True) -> None:
        """Open ``name`` in the open ``folder``. Raises OSError, also where it is a link.

        ``opening_up`` lets us into our own folders that are closed (mode 000) by changing that.
        """
        self._open = open_beside if opening_up else open_as_it_is
        self.fd = self._open(folder, name)
        self._above = array("Q")

    @property
    def depth(self) -> int:
        """How many folders above this one were entered."""
        return len(self._above)

    def enter(self, name: str) -> None:
        """Go down. Raises OSError: for a link (ELOOP), and for a mount (EXDEV)."""
        number = os.fstat(self.fd).st_ino
        below = self._open(self.fd, name)
        os.close(self.fd)
        self.fd = below
        self._above.append(number)

    def leave(self) -> None:
        """Go up. Raises OSError (ESTALE) where that is not where we came from."""
        above = os.open("..", _FOLDER | os.O_CLOEXEC, dir_fd=self.fd)
        if os.fstat(above).st_ino != self._above[-1]:
            os.close(above)
            raise OSError(errno.ESTALE, "a folder was moved while it was removed")
        os.close(self.fd)
        self.fd = above
        self._above.pop()

    def close(self) -> None:
        """Close the folder."""
        os.close(self.fd)


def open_as_it_is(folder: int, name: str) -> int:
    """Open a folder for reading, through no link and into no mount. Raises OSError."""
    return kernel.open_within(name, _FOLDER, folder)


def open_beside(folder: int, name: str) -> int:
    """``open_as_it_is``, but one that is closed to its owner (mode 000) is opened up first."""
    try:
        return open_as_it_is(folder, name)
    except PermissionError:
        _open_up(folder, name)
        return open_as_it_is(folder, name)


def _open_up(folder: int, name: str) -> None:
    fd = kernel.open_within(name, os.O_PATH | os.O_DIRECTORY, folder)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def remove_tree(path: str, stop: Callable[[], bool] = lambda: False) -> None:
    """Delete ``path`` and all below it; nothing if it is not there.

    Raises NotRemoved where something stays (an immutable file, another user's folder, a mount),
    after all else is gone, and Stopped soon after ``stop`` says so. Other faults are OSError.
    """
    above, _, name = path.rpartition("/")
    try:
        folder = os.open(
            above or ("/" if path.startswith("/") else "."), os.O_PATH | os.O_DIRECTORY
        )
    except FileNotFoundError:
        return
    try:
        remove_beside(folder, name, stop)
    finally:
        os.close(folder)


def remove_beside(folder: int, name: str, stop: Callable[[], bool] = lambda: False) -> None:
    """``remove_tree`` of ``name`` in the open ``folder``."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as refusal:
        if refusal.errno not in (errno.EISDIR, errno.EPERM, errno.EACCES):
            raise
        try:
            descent = Descent(folder, name)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise refusal from None
        removal = _Removal(descent, stop)
        try:
            removal.run()
        finally:
            descent.close()
        if removal.refused:
            raise NotRemoved(removal.errno, removal.sentence()) from None
        os.rmdir(name, dir_fd=folder)


class _Level:
    """What is still to be done in one folder on the way down."""

    __slots__ = ("again", "kept", "opened", "pending")

    def __init__(self) -> None:
        self.pending: list[tuple[str, int]] = []  # folders that are not empty: name, number
        self.again = True  # the folder must be read, or read once more
        self.kept: set[int] | None = None  # the numbers of what cannot be removed
        self.opened = False


class _Removal:
    """Empties the folder of a descent."""

    def __init__(self, descent: Descent, stop: Callable[[], bool]) -> None:
        self._descent = descent
        self._stop = stop
        # Of the folders above only those with something left to do have an entry of their own; of
        # the others all has been read.
        self._level = _Level()
        self._levels: dict[int, _Level] = {}
        self._entered = array("Q")
        self._names: list[str] = []  # of the first of those
        self._waiting = 0  # names in all levels
        self.refused = 0
        self.errno = 0
        self._examples: list[str] = []

    def run(self) -> None:
        """Remove all that can be. Raises OSError, Stopped."""
        while True:
            if self._stop():
                raise Stopped
            if self._level.again and not self._level.pending:
                self._read()
            if self._level.pending:
                self._go_down(*self._level.pending.pop())
            elif not self._level.again:
                if not self._descent.depth:
                    return
                self._go_up()

    def _read(self) -> None:
        """Remove what is not a folder, and empty folders; note the others."""
        level = self._level
        level.again = False
        with os.scandir(self._descent.fd) as scan:
            for count, entry in enumerate(scan):
                number = entry.inode()
                if level.kept is not None and number in level.kept:
                    continue
                if not self._removed(entry, number):
                    level.pending.append((entry.name, number))
                    self._waiting += 1
                    if self._waiting >= _PENDING:
                        level.again = True
                        return
                if count % _BREATH == 0 and self._stop():
                    raise Stopped

    def _removed(self, entry: os.DirEntry[str], number: int) -> bool:
        """Whether it is gone or must stay; False for a folder that is not empty."""
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            is_folder = False
        remove = os.rmdir if is_folder else os.unlink
        try:
            try:
                remove(entry.name, dir_fd=self._descent.fd)
            except PermissionError:  # a read-only folder: only a plain user meets this
                if self._level.opened:
                    raise
                self._level.opened = True
                os.fchmod(self._descent.fd, 0o700)
                remove(entry.name, dir_fd=self._descent.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            if is_folder and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            self._refuse(entry.name, number, error)
        return True

    def _go_down(self, name: str, number: int) -> None:
        self._waiting -= 1
        try:
            self._descent.enter(name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._refuse(name, number, error)
            return
        if self._level.pending or self._level.kept is not None or self._level.again:
            self._levels[self._descent.depth - 1] = self._level
        self._level = _Level()
        self._entered.append(number)
        if self._descent.depth <= _KNOWN:
            self._names.append(name)

    def _go_up(self) -> None:
        kept = self._level.kept
        self._descent.leave()
        number = self._entered.pop()
        depth = self._descent.depth
        known = depth in self._levels
        self._level = self._levels.pop(depth) if known else _Level()
        name = self._names.pop() if depth < _KNOWN else None
        if kept is not None:  # it cannot be empty
            self._keep(number)
        elif name is not None and self._is_removed(name):
            self._level.again = known and self._level.again
            return
        self._level.again = True  # the folder is empty now: reading its parent again removes it

    def _is_removed(self, name: str) -> bool:
        try:
            os.rmdir(name, dir_fd=self._descent.fd)
        except OSError:
            return False
        return True

    def _refuse(self, name: str, number: int, error: OSError) -> None:
        self.refused += 1
        self.errno = error.errno or errno.EPERM
        if len(self._examples) < _EXAMPLES:
            self._examples.append(f"{self._place()}/{name}: {error.strerror}")
        if self.refused >= _MOST_REFUSED:
            raise NotRemoved(self.errno, self.sentence())
        self._keep(number)

    def _keep(self, number: int) -> None:
        if self._level.kept is None:
            self._level.kept = set()
        self._level.kept.add(number)

    def _place(self) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{self._descent.fd}")
        except OSError:
            return "..."  # the path is too long to be told

    def sentence(self) -> str:
        """What stays, with a few examples."""
        more = self.refused - len(self._examples)
        text = "; ".join(self._examples)
        return f"{text}; and {more} more" if more else text
