"""What of this machine a job sees: found once when the engine opens, by the engine.

The job's root is a private folder on disk. The machine's own userland appears in it as overlays
(readable below, private and writable above), never its home folders, ``/var``, ``/srv``, ``/mnt``,
sockets or environment. The Python environment that the server runs in is there at its own path.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

_SYSTEM = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "snap")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCAL_RESOLVERS = ("127.", "::1")
_OPT_DEPTH = 2


@dataclass(frozen=True)
class Userland:
    """Paths of the machine. ``overlays`` are folders with a private layer above; ``hidden`` maps
    some of them to a folder of whiteouts between; ``read_only`` are folders bound as they are."""

    overlays: tuple[str, ...]
    hidden: dict[str, str]
    read_only: tuple[str, ...]
    symlinks: tuple[tuple[str, str], ...]
    covered: tuple[str, ...]
    path: str
    resolvers: str
    writable: bool = True


def find(folder: str, visible: tuple[str, ...] = (), masked: tuple[str, ...] = ()) -> Userland:
    """Look at this machine. ``folder`` is the engine's own: it and ``masked`` stay invisible.

    ``visible`` are more folders of the machine that every job may read.
    """
    overlays: list[str] = []
    symlinks: list[tuple[str, str]] = []
    for name in _SYSTEM:
        path = f"/{name}"
        if os.path.islink(path):
            symlinks.append((path, os.readlink(path)))
        elif os.path.isdir(path):
            overlays.append(path)
    overlays += _filesystems_below(overlays)
    for path in _python_folders():
        if not _is_below(path, overlays):
            overlays.append(path)
    package = str(Path(__file__).resolve().parents[2])
    read_only = [path for path in (*visible, package) if not _is_below(path, overlays)]
    for literal, real in _linked_folders():
        if not _is_below(literal, overlays):
            symlinks.append((literal, real))
    shown = [*overlays, *read_only]
    hidden = _hide_private_files(folder) if os.geteuid() == 0 else {}
    return Userland(
        overlays=tuple(overlays),
        hidden=hidden,
        read_only=tuple(read_only),
        symlinks=tuple(symlinks),
        covered=tuple(path for path in (folder, *masked) if _is_below(path, shown)),
        path=f"{os.path.join(sys.prefix, 'bin')}:{_SYSTEM_PATH}",
        resolvers=_resolvers(),
    )


def _python_folders() -> list[str]:
    """Real folders that hold the running interpreter, its libraries and this environment."""
    interpreter = os.path.realpath(sys.executable)
    paths = [
        os.path.realpath(sys.prefix),
        os.path.realpath(sys.base_prefix),
        os.path.dirname(os.path.dirname(interpreter)),
        os.path.realpath(sysconfig.get_path("stdlib")),
    ]
    found: list[str] = []
    for path in sorted(set(paths), key=len):
        if path not in ("/", "/usr") and not _is_below(path, found):
            found.append(path)
    return found


def _linked_folders() -> list[tuple[str, str]]:
    """Names of those folders that go through a symbolic link, as (name, real path)."""
    return [
        (literal, os.path.realpath(literal))
        for literal in dict.fromkeys((sys.prefix, sys.base_prefix))
        if os.path.realpath(literal) != literal
    ]


def _filesystems_below(folders: list[str]) -> list[str]:
    """Mounted folders below ``folders``: an overlay shows only its own file system."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            path = line.split()[4].encode().decode("unicode_escape")
            if path not in folders and _is_below(path, folders) and os.path.isdir(path):
                found.append(path)
    return sorted(set(found))


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _resolvers() -> str:
    """The text of a resolv.conf that works from a network of its own."""
    text = ""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError:
            continue
        servers = [line.split()[1] for line in text.splitlines() if line[:10] == "nameserver"]
        if any(not server.startswith(_LOCAL_RESOLVERS) for server in servers):
            return text
    return text


def _hide_private_files(folder: str) -> dict[str, str]:
    """Make whiteouts for what only some users may read: without it uid 0 could read /etc/shadow.

    As a plain user the kernel already refuses, because the job is that user.
    """
    hidden: dict[str, str] = {}
    for top, depth in (("/etc", 32), ("/opt", _OPT_DEPTH)):
        if not os.path.isdir(top):
            continue
        layer = f"{folder}/hidden{top}"
        os.makedirs(layer, exist_ok=True)
        if _hide_below(top, layer, depth):
            hidden[top] = layer
    return hidden


def _hide_below(source: str, layer: str, depth: int) -> bool:
    """Whether anything had to be hidden below ``source``."""
    shadowed = False
    wanted: set[str] = set()
    try:
        entries = list(os.scandir(source))
    except OSError:
        return False
    for entry in entries:
        if entry.is_symlink():
            continue
        info = entry.stat(follow_symlinks=False)
        target = f"{layer}/{entry.name}"
        needed = stat.S_IROTH
        if stat.S_ISDIR(info.st_mode):
            needed |= stat.S_IXOTH
        if info.st_mode & needed != needed:
            _white_out(target)
        elif not (
            stat.S_ISDIR(info.st_mode) and depth > 1 and _hide_folder(entry.path, target, depth - 1)
        ):
            continue
        shadowed = True
        wanted.add(entry.name)
    if not shadowed:
        return False
    for name in set(os.listdir(layer)) - wanted:
        _discard(f"{layer}/{name}")
    info = os.stat(source)
    os.chown(layer, info.st_uid, info.st_gid)  # the upper of two merged folders gives its owner
    os.chmod(layer, stat.S_IMODE(info.st_mode))
    return True


def _hide_folder(source: str, layer: str, depth: int) -> bool:
    if os.path.lexists(layer) and not os.path.isdir(layer):
        os.unlink(layer)
    os.makedirs(layer, exist_ok=True)
    if _hide_below(source, layer, depth):
        return True
    _discard(layer)
    return False


def _white_out(path: str) -> None:
    if os.path.lexists(path):
        if stat.S_ISCHR(os.lstat(path).st_mode):
            return
        _discard(path)
    os.mknod(path, stat.S_IFCHR | 0o000, os.makedev(0, 0))


def _discard(path: str) -> None:
    from neuro.engines.sandbox.layout import remove_tree

    remove_tree(path)
