"""Opening files inside a folder, and never outside of it.

Jobs write into the same trees through their volumes, so any component of a path may be, or become
at any moment, a symbolic link to anywhere. The kernel itself resolves paths here (``openat2`` with
``RESOLVE_BENEATH``): a link may lead around inside the fence, and nothing gets out, without any
time between a check and a use. Kernels before 5.6 and some seccomp filters lack the call; there,
each component is opened by itself and no link is followed at all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

_SYS_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
# A rename in the tree at the very moment makes the kernel ask for another try.
_TRIES = 64

_libc = ctypes.CDLL(None, use_errno=True)


class Escape(OSError):
    """A symbolic link on the way leads outside of the fence, or nowhere."""


class Place(msgspec.Struct, frozen=True):
    """Where something is: path segments below the storage's root, and a fence.

    The first ``fence`` segments must be real folders; behind them symbolic links are followed as
    long as they stay inside. So the fence is the widest folder that the caller has a right to.
    """

    segments: tuple[str, ...]
    fence: int

    @property
    def name(self) -> str:
        """The last segment."""
        return self.segments[-1]

    @property
    def parent(self) -> Place:
        upper = self.segments[:-1]
        return Place(upper, min(self.fence, len(upper)))

    @property
    def path(self) -> str:
        """``/owner/…``, as clients write it."""
        return "/" + "/".join(self.segments)

    def child(self, *names: str) -> Place:
        return Place(self.segments + names, self.fence)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _openat2(folder: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, resolve)
    for _ in range(_TRIES):
        fd: int = _libc.syscall(
            _SYS_OPENAT2, folder, path, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    if number in (errno.EXDEV, errno.ELOOP):
        raise Escape(number, os.strerror(number))
    raise OSError(number, os.strerror(number))


def has_openat2() -> bool:
    """Whether this kernel (and its seccomp filter) lets us use ``openat2``."""
    try:
        os.close(_openat2(-100, b"/", os.O_PATH, 0, _RESOLVE_NO_MAGICLINKS))
    except OSError:
        return False
    return True


def _open_by_steps(folder: int, names: Sequence[bytes], flags: int, mode: int) -> int:
    """Open without ``openat2``: one component at a time, following no link."""
    current = os.dup(folder)
    try:
        for name in names[:-1]:
            upper, current = current, _step(current, name, os.O_PATH | os.O_DIRECTORY, 0)
            os.close(upper)
        return _step(current, names[-1] if names else b".", flags, mode)
    finally:
        os.close(current)


def _step(folder: int, name: bytes, flags: int, mode: int) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ENOTDIR and _is_link(folder, name):
            raise Escape(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        if error.errno == errno.ELOOP:
            raise Escape(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise Escape(errno.ELOOP, os.strerror(errno.ELOOP))
    return fd


def _is_link(folder: int, name: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


class Fence:
    """Opens places below one root folder. See the module's docstring."""

    def __init__(self, root: Path, *, use_openat2: bool | None = None) -> None:
        """``use_openat2`` None asks the kernel. The root folder must exist."""
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kernel = has_openat2() if use_openat2 is None else use_openat2

    def close(self) -> None:
        os.close(self._root)

    def open(self, names: Sequence[bytes], fence: int, flags: int, mode: int = 0o666) -> int:
        """A file descriptor for root/names. Raises Escape, and OSError as ``open`` does."""
        real = list(names[:fence])
        if len(names) <= fence:
            return self.open_real(self._root, real, flags, mode)
        base = self.open_real(self._root, real, os.O_PATH | os.O_DIRECTORY)
        try:
            rest = list(names[fence:])
            if not self._kernel:
                return _open_by_steps(base, rest, flags, mode)
            resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS
            return _openat2(base, b"/".join(rest), flags, mode, resolve)
        finally:
            os.close(base)

    def open_real(self, folder: int, names: Sequence[bytes], flags: int, mode: int = 0o666) -> int:
        """A descriptor for folder/names where no component, the last included, is a link."""
        if not self._kernel:
            return _open_by_steps(folder, names, flags, mode)
        resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS
        return _openat2(folder, b"/".join(names) or b".", flags, mode, resolve)


def reopen(fd: int, flags: int) -> int:
    """Open again what an O_PATH descriptor stands for: the very same file, whatever its name.

    Raises BlockingIOError where another process has a lease on the file: a job that does not give
    it up would otherwise hold the thread for as long as the kernel waits, 45 seconds.
    """
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
