"""System calls that Python 3.11 does not offer: namespaces, capabilities, process options."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

SIGCHLD = 17
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
# These have the same number on every architecture.
_OPEN_TREE, _MOVE_MOUNT, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 428, 429, 436, 437, 442
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_MACHINE = os.uname().machine
_CLONE, _KEYCTL = {"x86_64": (56, 250), "aarch64": (220, 219)}.get(_MACHINE, (-1, -1))
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS = 0x01, 0x02
_RESOLVE_NO_SYMLINKS, _RESOLVE_IN_ROOT = 0x04, 0x10
_OPEN_TREE_CLONE = 1
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_CREATE = 6
_MOVE_EMPTY_PATHS = 0x04 | 0x40
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_TMPFS = 0x01021994
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
_ATTR_IDMAP = 0x00100000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, _MS_PRIVATE, _MS_SLAVE = 16384, 1 << 18, 1 << 19
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

# How names of files are encoded: each run gives the kernel a hundred.
_NAMES = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

# PyDLL keeps the interpreter's lock: one that a clone copied while it was free would stay so.
_libc = ctypes.PyDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def call(what: str, number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library may not know. Raises OSError."""
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *given)
    _check(result, what)
    return result


def as_bytes(text: str) -> bytes:
    """What the kernel is given for a text. Raises ValueError: its strings end at the first NUL."""
    if "\0" in text:
        raise ValueError(f"{text!r} contains a NUL character")
    return text.encode(*_NAMES)  # what ``os.fsencode`` does, in a third of its time


def clone(flags: int) -> int:
    """Fork into new namespaces: 0 in the child, its pid in the parent. Raises OSError.

    Only for processes with one thread: nothing that is told of ``os.fork`` is told of this.
    """
    return call("clone", _CLONE, flags | SIGCHLD, 0, 0, 0, 0)


def reset_signals() -> None:
    """Undo what Python, we and whoever started the server ignore: it would be inherited.

    For a process that becomes another program: Python itself is told nothing.
    """
    for number in range(1, 65):  # the C library refuses those that are its own
        _libc.signal(number, None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def close_between(first: int, last: int = 0x7FFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``, by default to the highest there is."""
    if first <= last:
        call("close_range", _CLOSE_RANGE, first, last, 0)


def enter_namespaces(pid: int, kinds: int) -> None:
    """Enter these namespaces of a process, all at once, and be root in them. Raises OSError.

    With CLONE_NEWPID only children are born in that one.
    """
    process = os.pidfd_open(pid)
    try:
        setns(process, kinds)
    finally:
        os.close(process)
    become_root_inside()


def forget_keys() -> None:
    """Leave the session's keyring for a new one that nobody else has."""
    if _KEYCTL > 0:
        _libc.syscall(ctypes.c_long(_KEYCTL), ctypes.c_long(_KEYCTL_JOIN_SESSION_KEYRING), None)


def read_files_as(uid: int) -> None:
    """Open files as ``uid`` and its group from now on, without root's rights over files.

    All other capabilities stay; 0 brings those over files back.
    """
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)


def become_root_inside() -> None:
    """Be user and group 0 of the user namespace that this process is in. Raises OSError."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def unshare(flags: int) -> None:
    """Leave namespaces for new ones. Raises OSError."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace that ``fd`` refers to. Raises OSError."""
    _check(_libc.setns(fd, kind), "setns")


def become_subreaper() -> None:
    """Orphans of our children become our children, wherever the machine's pid 1 is."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def map_ids(pid: int, mapping: str) -> None:
    """Say which users and groups the new user namespace of ``pid`` has. Raises OSError."""
    for name in ("uid_map", "gid_map"):
        write(f"/proc/{pid}/{name}", mapping)


def map_own_ids(user: int, group: int) -> None:
    """Be root of our own new user namespace, who is ``user`` outside. Raises OSError."""
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {user} 1")
    write("/proc/self/gid_map", f"0 {group} 1")


def write(path: str, text: str) -> None:
    """Tell the kernel something by a file that is there. Raises OSError."""
    # By hand: a text file of Python's makes five more calls.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def set_name(name: str) -> None:
    """What ``ps`` shows as the command (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent() -> None:
    """SIGKILL for us when our parent ends, whatever ends it."""
    _libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)


def hide_arguments() -> None:
    """Show nothing of this process's command line, which a fork has from its parent."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)


def set_hostname(name: str) -> None:
    """The host name of this UTS namespace. Raises OSError."""
    text = as_bytes(name)
    _check(_libc.sethostname(text, ctypes.c_size_t(len(text))), "sethostname")


def hide_memory() -> None:
    """Nobody without privileges over this process may open what is below its /proc folder."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def show_memory() -> None:
    """Undo ``hide_memory``."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl")


def enter_guard(protected: Sequence[str] = ()) -> None:
    """Enter a mount namespace in which ``protected`` are read-only, for us and our children.

    A plain user has the right to mount in a user namespace only, as root of it. Mounts that the
    host makes later still arrive here. Raises OSError.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        unshare(CLONE_NEWUSER)
        map_own_ids(user, group)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | _MS_SLAVE)
    for path in protected:
        mount(path, path, flags=MS_BIND)
        tree = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            set_attributes(tree, ATTR_RDONLY)
        finally:
            os.close(tree)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change a mount. Raises OSError."""
    arguments = [as_bytes(text) if text else None for text in (source, target, kind, options)]
    flag_word = ctypes.c_ulong(flags)
    _check(_libc.mount(*arguments[:3], flag_word, arguments[3]), f"mount of {source or kind}")


def unmount(target: str) -> None:
    """Take a mount, and all mounts below it, out of our sight. Raises OSError."""
    _check(_libc.umount2(as_bytes(target), _MNT_DETACH), "umount")


def enter_root() -> None:
    """Make the working directory, which is a mount, the root, and let go of the old one.

    Raises OSError.
    """
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def copy_tree(path: str, folder: int = _AT_FDCWD, *, recursive: bool = True) -> int:
    """A descriptor of a new mount of what is at ``path``, attached nowhere yet. Raises OSError.

    An empty ``path`` means ``folder`` itself. With ``recursive`` the mounts below it come too.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return call(
        "open_tree", _OPEN_TREE, folder, as_bytes(path), flags | (path == "") * _AT_EMPTY_PATH
    )


def new_tree(kind: str, attributes: int) -> int:
    """A descriptor of a new file system that takes no options, attached nowhere yet.

    Raises OSError.
    """
    context = call("fsopen", _FSOPEN, as_bytes(kind), _FSOPEN_CLOEXEC)
    try:
        call("fsconfig", _FSCONFIG, context, _FSCONFIG_CREATE, None, None, 0)
        return call("fsmount", _FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def set_attributes(tree: int, attributes: int, users: int | None = None) -> None:
    """Set ``ATTR_...`` of a mount and all below it, and keep it apart from the one it is a copy of.

    What the host mounts later in the original would else arrive here without these attributes.
    ``users`` is a user namespace: what its user n is outside, the files of user n belong to.
    Raises OSError (EINVAL where the file system cannot map users).
    """
    mapped = _ATTR_IDMAP if users is not None else 0
    asked = struct.pack("=QQQQ", attributes | mapped, 0, _MS_PRIVATE, users or 0)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    call("mount_setattr", _MOUNT_SETATTR, tree, b"", flags, asked, len(asked))


def attach(tree: int, place: int) -> None:
    """Attach a mount that ``copy_tree`` made at an open place. Raises OSError."""
    call("move_mount", _MOVE_MOUNT, tree, b"", place, b"", _MOVE_EMPTY_PATHS)


def attach_at(tree: int, path: str) -> None:
    """The same at the place that a name leads to. Raises OSError."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        attach(tree, place)
    finally:
        os.close(place)


def as_option(path: str) -> str:
    """A path as it stands among the options of an overlay."""
    for character in "\\:,":
        path = path.replace(character, f"\\{character}")
    return path


def open_below(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open ``path`` as a process with ``root`` as its root would, and through no magic link.

    Every link on the way, absolute or not, leads below ``root``. Raises OSError.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return call(path, _OPENAT2, root, as_bytes(path), how, len(how))


def become_user(uid: int, gid: int, groups: Sequence[int], keep: tuple[int, ...]) -> None:
    """Be another user of this user namespace; only root has capabilities then. Raises OSError."""
    bound_capabilities(keep if uid == 0 else ())  # while we may
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    hide_memory()  # the kernel asks again for whom that is


def bound_capabilities(keep: tuple[int, ...]) -> None:
    """Let no program that this process executes gain a capability outside ``keep``."""
    for number in range(64):
        if number not in keep and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # the first number that this kernel does not know
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def is_in_memory(path: str) -> bool:
    """Whether a path is on a tmpfs. Raises OSError."""
    found = (ctypes.c_long * 64)()
    _check(_libc.statfs(as_bytes(path), found), path)
    return found[0] == _TMPFS


def drop_capabilities(keep: tuple[int, ...]) -> None:
    """Give up, for good, every capability outside ``keep``. Raises OSError."""
    bound_capabilities(keep)
    mask = sum(1 << number for number in keep)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def process_start(pid: int) -> int | None:
    """When the process started, in clock ticks since boot: with the pid, its identity."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 4096).rpartition(b")")[2].split()[19])
        finally:
            os.close(fd)
    except (OSError, IndexError, ValueError):
        return None


def open_without_links(path: str, flags: int = os.O_PATH, folder: int = -100) -> int:
    """A descriptor of a path none of whose parts is a symbolic link.

    The path is absolute, or below the open ``folder``. Raises OSError (ELOOP for a link). Kernels
    before 5.6 check the last part only.
    """
    flags |= os.O_CLOEXEC
    how = struct.pack("=QQQ", flags, 0, _RESOLVE_NO_SYMLINKS)
    found: int = _libc.syscall(_OPENAT2, folder, as_bytes(path), how, ctypes.c_size_t(len(how)))
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
    found: int = _libc.syscall(_OPENAT2, folder, as_bytes(name), how, ctypes.c_size_t(len(how)))
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
