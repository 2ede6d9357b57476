"""System calls that Python 3.11 does not offer: namespaces, capabilities, process options."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_SYMLINKS = 0x04
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_MS_REC, _MS_SLAVE = 16384, 1 << 19
_MNT_DETACH = 2

# Docker's default set less CAP_MKNOD: without a device cgroup a made node would be the host's disk.
PRIVILEGED = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that ``fd`` refers to. Raises OSError."""
    _check(_libc.setns(fd, kind), "setns")


def become_subreaper() -> None:
    """Orphans of our children become our children, wherever the machine's pid 1 is."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def set_name(name: str) -> None:
    """What ``ps`` shows as the command (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent() -> None:
    """SIGKILL for us when our parent ends, whatever ends it."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def hide_memory() -> None:
    """Nobody without privileges over this process may open what is below its /proc folder."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def protect_files(paths: list[str]) -> None:
    """In a mount namespace of our own, make ``paths`` read-only for us and our children.

    Mounts that the host makes later still arrive here. Raises OSError.
    """
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=_MS_REC | _MS_SLAVE)
    for path in paths:
        mount(path, path, flags=MS_BIND)
        mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change a mount. Raises OSError."""
    arguments = [os.fsencode(text) if text else None for text in (source, target, kind, options)]
    flag_word = ctypes.c_ulong(flags)
    _check(_libc.mount(*arguments[:3], flag_word, arguments[3]), "mount")


def unmount(target: str) -> None:
    """Take a mount, and all mounts below it, out of our sight. Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), "umount")


def drop_capabilities(keep: tuple[int, ...]) -> None:
    """Give up, for good, every capability outside ``keep``. Raises OSError."""
    for number in range(64):
        if number not in keep and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # the first number that this kernel does not know
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def process_start(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, its identity."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def open_without_links(path: str, flags: int = os.O_PATH, folder: int = -100) -> int:
    """A descriptor of a path none of whose parts is a symbolic link.

    The path is absolute, or below the open ``folder``. Raises OSError (ELOOP for a link). Kernels
    before 5.6 check the last part only.
    """
    flags |= os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_SYMLINKS)
    found: int = _libc.syscall(_OPENAT2, folder, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return os.open(path, flags | os.O_NOFOLLOW, dir_fd=None if folder < 0 else folder)
    raise OSError(number, os.strerror(number), path)


def open_within(name: str, flags: int, folder: int) -> int:
    """Open ``name`` in the open ``folder`` if it is neither a link nor mounted there.

    Raises OSError: ELOOP (or ENOTDIR) for a link, EXDEV for a mount. Kernels before 5.6 tell a
    mount by its device only.
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV)
    found: int = _libc.syscall(_OPENAT2, folder, os.fsencode(name), how, ctypes.c_size_t(len(how)))
    if found >= 0:
        return found
    number = ctypes.get_errno()
    if number != errno.ENOSYS:
        raise OSError(number, os.strerror(number), name)
    found = os.open(name, flags, dir_fd=folder)
    if os.fstat(found).st_dev != os.fstat(folder).st_dev:
        os.close(found)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return found
