"""The root of a run, made by its second process in the run's own user and mount namespaces.

From here on no path leads to the machine: what a user wrote is looked up below the run's root only.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from functools import cache

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.kernel import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
)

TYPE_CHECKING = False  # typing itself costs every job memory
if TYPE_CHECKING:
    from neuro.engines.sandbox.userland import Userland

DEVICES = {
    **{"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9)},
    "tty": (5, 0),
}
LINKS = (
    *(("fd", "/proc/self/fd"), ("core", "/proc/kcore"), ("ptmx", "pts/ptmx")),
    *((name, f"/proc/self/fd/{fd}") for fd, name in enumerate(("stdin", "stdout", "stderr"))),
)
_RUN_SIZE = 256 << 20
_TERMINALS = 256  # the machine has 3072 for all jobs together
# Read-only, as in containers elsewhere: most are root's only, but not all ask who writes.
_FROZEN = ("sys", "sysrq-trigger", "irq", "bus", "fs")
_COVERED_FILES = (
    *("kcore", "keys", "key-users", "latency_stats", "timer_list", "sched_debug", "kmsg"),
    *("slabinfo", "vmallocinfo", "kpageflags", "kpagecount", "kpagecgroup", "pagetypeinfo"),
    *("allocinfo", "interrupts", "softirqs", "iomem", "ioports", "config.gz"),
)
_COVERED_FOLDERS = ("scsi", "acpi", "asound", "driver/nvram")
_HOSTS = "/etc/hosts"  # which names neighbours: the run's own
_CLOSED = ("/proc", "/sys", "/dev")  # nothing of a user's may lie there


class Refused(Exception):
    """What was asked for cannot be done; the sentence says why, for the job's owner.

    ``place`` is the folder in which something could not be made, if that was it.
    """

    def __init__(self, sentence: str, place: str = "") -> None:
        super().__init__(sentence)
        self.place = place


@cache
def covered_files() -> list[str]:
    """Files of /proc to cover: a run reads only what everybody may, being nobody's root there."""
    found = []
    for name in _COVERED_FILES:
        try:
            if os.stat(f"/proc/{name}").st_mode & stat.S_IROTH:
                found.append(name)
        except OSError:
            pass  # this kernel has no such file
    return found


def mount_proc() -> None:
    """Mount the run's /proc on the stage, before the rights to do so are gone. Raises OSError."""
    kernel.mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    for name in _FROZEN:
        path = f"proc/{name}"
        if os.path.lexists(path):
            kernel.mount(path, path, flags=MS_BIND | MS_REC)
            kernel.mount("none", path, flags=MS_BIND | MS_REMOUNT | MS_RDONLY | flags)
    for name in covered_files():
        kernel.mount("/dev/null", f"proc/{name}", flags=MS_BIND)
    for name in _COVERED_FOLDERS:
        if os.path.isdir(f"proc/{name}"):
            options = "mode=0555,size=4k"
            kernel.mount("tmpfs", f"proc/{name}", "tmpfs", MS_RDONLY | flags, options)


def make_root(land: Userland, *, plain: bool) -> list[list[int]]:
    """Put the root together on the stage and move into it. Raises OSError.

    What is below each of its overlays, the highest first: for a run whose image lies above it.
    """
    grounds = []
    for number, path in enumerate(("/", *land.overlays)):
        _overlay(land, number, path)
        grounds.append([kernel.copy_tree(name, recursive=False) for name in _below(land, path)])
    for number, path in enumerate(land.read_only):
        kernel.mount(f"shown/{number}", f"root{path}", flags=MS_BIND | MS_REC)
    cover(land, "root")
    for name in ("proc", "sys", "dev"):
        kernel.mount(name, f"root/{name}", flags=MS_BIND | MS_REC)
    mount_terminals("root/dev/pts", plain=plain)
    make_run_folder("root")
    os.chdir("root")
    kernel.enter_root()
    return grounds


def cover(
    land: Userland, root: str, at: Callable[[str, Callable[[str], None]], None] | None = None
) -> None:
    """Let folders of the userland show empty. Raises OSError.

    ``at`` mounts on such a folder, by a path below the root, where somebody else made the root and
    its links: this one follows them.
    """

    def mount(target: str) -> None:
        flags = MS_RDONLY | MS_NOSUID | MS_NODEV
        kernel.mount("tmpfs", target, "tmpfs", flags, "mode=0700,size=4k")

    for path in land.covered:
        try:
            if at is None:
                mount(f"{root}{path}")
            else:
                at(path, mount)
        except OSError as error:
            # The run cannot open a folder above it, or does not see it, as only some users may read
            # it: it is covered already.
            if error.errno not in (errno.EACCES, errno.ENOENT, errno.ENOTDIR):
                raise


def make_run_folder(root: str) -> None:
    """A small disk at /run, as userlands expect it. Raises OSError."""
    _small_disk(f"{root}/run", _RUN_SIZE, "0755")
    os.mkdir(f"{root}/run/lock", 0o1777)
    os.chmod(f"{root}/run/lock", 0o1777)  # noqa: S103 - as everywhere


def _below(land: Userland, path: str) -> list[str]:
    """The folders on the stage below one of the root's overlays, the highest first."""
    if path == "/":
        return [f"land/{land.template}"]
    layers = [f"land/{name}" for name in land.between.get(path, ())]
    return [*reversed(layers), land.lower(path)]


def mount_terminals(target: str, *, plain: bool) -> None:
    """Mount terminals of the run's own. Raises OSError."""
    options = f"newinstance,max={_TERMINALS},ptmxmode=0666,mode=620,uid=0"
    options += "" if plain else ",gid=5"
    kernel.mount("devpts", target, "devpts", MS_NOSUID | MS_NOEXEC, options)


def _overlay(land: Userland, number: int, path: str) -> None:
    target = f"root{path}"
    upper, work = f"private/{number}", f"private/{number}.work"
    if path == "/" and not land.writable:
        kernel.mount(upper, target, flags=MS_BIND)  # a copy of the template
        return
    lower = ":".join(map(kernel.as_option, _below(land, path)))
    flags = MS_NOSUID | MS_NODEV
    if land.writable:
        # A run's private files never outlive it. Without "volatile" the end of each overlay waits
        # until all of the disk's files are written back, everybody's.
        options = f"lowerdir={lower},upperdir={upper},workdir={work},userxattr,volatile"
    else:
        # ``upper`` still brings what is the run's own: its hosts
        flags, options = flags | MS_RDONLY, f"lowerdir={upper}:{lower},userxattr"
    kernel.mount("overlay", target, "overlay", flags, options)


def _small_disk(target: str, size: int, mode: str) -> None:
    options = f"mode={mode},size={size},nr_inodes=64k"
    kernel.mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, options)


def mount_shared_memory(size: int) -> None:
    """Mount ``size`` bytes for POSIX shared memory. Raises OSError."""
    options = f"mode=1777,size={size}"
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options)  # noqa: S108


def mount_devices(devices: Sequence[tuple[int, str]]) -> None:
    """Attach (tree, name) below /dev. Raises OSError."""
    for tree, name in devices:
        path, flags = f"/dev/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        if stat.S_ISDIR(os.fstat(tree).st_mode):  # nvidia-caps is one
            os.mkdir(path)
        else:
            flags |= os.O_CREAT | os.O_EXCL
        target = os.open(path, flags, 0o600)
        try:
            kernel.attach(tree, target)
        finally:
            os.close(target)


def mount_volumes(volumes: Sequence[tuple[int, str, bool]], closed: Sequence[str] = ()) -> None:
    """Attach (tree, target, whether it is a folder), outer ones first.

    Nothing may lie over one of the folders ``closed``, or within. Raises Refused.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for tree, target, is_folder in sorted(volumes, key=lambda volume: volume[1]):
            what = f"the volume at {target}"
            place = _make_folder(root, target, what) if is_folder else _file(root, target, what)
            try:
                _check_apart(place, what, closed)
                kernel.attach(tree, place)
            except OSError as error:
                raise Refused(f"{what} cannot be mounted: {error.strerror}") from error
            finally:
                os.close(place)
    finally:
        os.close(root)


def make_place(root: int, path: str, *, is_folder: bool) -> None:
    """Make what is missing below ``root`` to mount a folder or a file on. Raises Refused."""
    what = f"the mount at {path}"
    os.close(_make_folder(root, path, what) if is_folder else _file(root, path, what))


def lies_on(place: str, trees: Sequence[int]) -> bool:
    """Whether a folder of the run lies on one of the mounts ``trees``."""
    mounts = [_path(tree) for tree in trees]  # "/" for one that is not attached yet
    return any(f"{place}/".startswith(f"{mount}/") for mount in mounts if mount != "/")


def make_working_folder(path: str) -> None:
    """Make the folder in which the command begins, if it is not there. Raises Refused."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(_make_folder(root, path, f"the working directory {path}", inside_closed=True))
    except OSError as error:
        raise Refused(f"the working directory {path} cannot be used: {error.strerror}") from error
    finally:
        os.close(root)


def _parts(path: str, what: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or "\0" in path:
        raise Refused(f"{what} must be an absolute path without '..'")
    return parts


def _make_folder(root: int, path: str, what: str, *, inside_closed: bool = False) -> int:
    """Open a folder below ``root``, making what is missing of it. Raises Refused."""
    so_far, folder = "", os.dup(root)
    for part in _parts(path, what):
        so_far += f"/{part}"
        try:
            found = _next(root, folder, so_far, part)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise Refused(_no_folder(what, path, so_far)) from None
            dangling = error.errno == errno.EEXIST
            reason = "the link there is dangling" if dangling else error.strerror
            where = "" if what.endswith(f" {so_far}") else f" {so_far}:"
            raise Refused(f"{what} cannot be made:{where} {reason}", _path(folder)) from error
        finally:
            os.close(folder)
        folder = found
    if not inside_closed:
        _check_open(folder, what)
    return folder


def _no_folder(what: str, path: str, so_far: str) -> str:
    if so_far.split("/")[1:] == _parts(path, what):
        return f"{what} is a file, not a folder"
    return f"{what} cannot be made: {so_far} is a file, not a folder"


def _next(root: int, folder: int, so_far: str, part: str) -> int:
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return kernel.open_below(root, so_far, flags)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=folder)
        return kernel.open_below(root, so_far, flags)


def _file(root: int, path: str, what: str) -> int:
    *parents, name = _parts(path, what) or [""]
    # Files may be right below the root, though nothing may be mounted on it.
    folder = _make_folder(root, "/" + "/".join(parents), what, inside_closed=not parents)
    try:
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o444, dir_fd=folder))
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(f"{what} cannot be made: {error.strerror}", _path(folder)) from error
    finally:
        os.close(folder)
    try:
        place = kernel.open_below(root, path)
    except OSError as error:
        raise Refused(f"{what} cannot be mounted: {error.strerror}") from error
    if stat.S_ISDIR(os.fstat(place).st_mode):
        os.close(place)
        raise Refused(f"{what} is one file, and a folder is there already")
    _check_open(place, what)
    return place


def _check_open(place: int, what: str) -> None:
    path = _path(place)
    if path == "/" or any(path == closed or path.startswith(closed + "/") for closed in _CLOSED):
        os.close(place)
        raise Refused(f"{what} leads to {path}, where nothing can be mounted")


def _check_apart(place: int, what: str, closed: Sequence[str]) -> None:
    path = _path(place)
    for one in closed if path != _HOSTS else ():
        if f"{path}/".startswith(f"{one}/") or f"{one}/".startswith(f"{path}/"):
            raise Refused(f"{what} leads to {path}, where nothing can be mounted in this job")


def _path(opened: int) -> str:
    return os.readlink(f"/proc/self/fd/{opened}")
