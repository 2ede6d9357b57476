"""Finding the userland of this machine: once when the engine opens, by the engine.

It is a module of its own because supervisors need none of what it imports.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
import sysconfig

from neuro.engines.sandbox.layout import remove_tree
from neuro.engines.sandbox.userland import Userland, is_below

_SYSTEM = ("usr", "etc", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix", "snap")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SEARCHED = (("/etc", 32), ("/opt", 2))  # for private files, and how deep

_FOLDERS = (
    *("dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys"),
    *("var/cache", "var/lib", "var/log", "var/spool"),
)
_OPEN_FOLDERS = ("tmp", "var/tmp")
_LINKS = (("/var/run", "/run"), ("/var/lock", "/run/lock"))
_MODE = 0o755  # of folders


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
        if not is_below(path, overlays):
            overlays.append(path)
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
    read_only = [path for path in (*visible, package) if not is_below(path, overlays)]
    for literal, real in _linked_folders():
        if not is_below(literal, overlays):
            symlinks.append((literal, real))
    shown = [*overlays, *read_only]
    # By the real name too: an image may put something else in the place of a link on the way.
    hidden = [name for path in (folder, *masked) for name in (path, os.path.realpath(path))]
    covered = [path for path in dict.fromkeys(hidden) if is_below(path, shown)]
    path = f"{os.path.join(sys.prefix, 'bin')}:{_SYSTEM_PATH}"
    land = f"{folder}/land"
    between = _our_layers(land, path)
    for top, depth in _SEARCHED if os.geteuid() == 0 else ():
        if _white_out(f"{land}/hidden{top}", top, _private_paths(top, depth)):
            between[top] = (f"hidden{top}", *between.get(top, ()))
    return Userland(
        overlays=tuple(overlays),
        bases=tuple(dict.fromkeys(_base(path) for path in overlays)),
        between=between,
        read_only=tuple(read_only),
        covered=tuple(covered),
        template=_make_template(land, [*shown, *covered], symlinks),
        path=path,
    )


def give_away(folder: str, owner: int) -> None:
    """Let our layers belong to the user ``owner``, where no mount can make it seem so."""
    for place, folders, files in os.walk(f"{folder}/land"):
        for name in ("", *folders, *files):
            os.chown(f"{place}/{name}" if name else place, owner, owner, follow_symlinks=False)


def _base(path: str) -> str:
    """The folder whose mount shows ``path`` to a user who is nobody: / if that can be.

    Not where something else is mounted on the way, or a folder above is closed to others.
    """
    root = os.stat("/")
    above = path
    while above != "/":
        info = os.stat(above)
        is_open = above == path or info.st_mode & stat.S_IXOTH
        if info.st_dev != root.st_dev or not is_open or os.path.ismount(above):
            return path
        above = os.path.dirname(above)
    return "/"


def _make_template(land: str, places: list[str], symlinks: list[tuple[str, str]]) -> str:
    """A job's root as it is before anything is mounted or written.

    It is shared and never changed, because it lies below the roots of jobs that are going on: other
    contents have another name. Making these thirty folders for each run was a quarter of all the
    work of a short one on ext4, which looks for an inode that was not deleted a moment ago.
    """
    wanted = json.dumps([_FOLDERS, _OPEN_FOLDERS, _LINKS, places, symlinks, _MODE]).encode()
    name = f"template/{hashlib.sha256(wanted).hexdigest()[:16]}"
    template = f"{land}/{name}"
    if os.path.isdir(template):
        return name
    made = f"{template}.{os.getpid()}"
    for place in (*_FOLDERS, *_OPEN_FOLDERS, *(place.lstrip("/") for place in places)):
        os.makedirs(f"{made}/{place}", exist_ok=True)
    for path, target in (*_LINKS, *symlinks):
        os.makedirs(os.path.dirname(made + path), exist_ok=True)
        os.symlink(target, made + path)
    _show_to_all(made)
    for place in _OPEN_FOLDERS:
        os.chmod(f"{made}/{place}", 0o1777)  # noqa: S103 - as /tmp is
    os.chmod(f"{made}/root", 0o700)
    os.rename(made, template)
    return name


def _our_layers(land: str, path: str) -> dict[str, tuple[str, ...]]:
    """Layers with the few files of the userland that are not the machine's own."""
    from neuro.engines.sandbox import resolving  # for the server alone: sleeping runs hold the rest

    layers = f"{land}/given"
    _write(f"{layers}/etc/resolv.conf", resolving.find().text)
    found: dict[str, tuple[str, ...]] = {"/etc": ("given/etc",)}
    if shutil.which("python", path=path) is None:
        link = f"{layers}/usr/local/bin/python"
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(os.path.realpath(sys.executable), link)
        found["/usr"] = ("given/usr",)
    _show_to_all(layers)
    return found


def _show_to_all(folder: str) -> None:
    """Let every user of a job read the folders below ``folder``, whatever our umask is."""
    for place, _, _ in os.walk(folder):
        os.chmod(place, _MODE)


def _write(path: str, text: str) -> None:
    """Write ``text`` so that a job that is going on sees the old or the new."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(temporary, 0o644)
    os.rename(temporary, path)


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
        if path not in ("/", "/usr") and not is_below(path, found):
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
            if path not in folders and is_below(path, folders) and os.path.isdir(path):
                found.append(path)
    return sorted(set(found))


def _private_paths(folder: str, depth: int) -> list[str]:
    """What only some users may read below ``folder``, not what is below such a folder.

    Jobs cannot read it wherever it is (see ``stage._show``). That it is not there at all is for
    programs that expect to read what belongs to them: a job's root owns /etc/shadow.
    """
    found: list[str] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found
    for entry in entries:
        if entry.is_symlink():
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & needed != needed:
            found.append(entry.path)
        elif stat.S_ISDIR(mode) and depth > 1:
            found += _private_paths(entry.path, depth - 1)
    return found


def _white_out(layer: str, top: str, paths: list[str]) -> bool:
    """Make a layer in which ``paths`` below ``top`` do not exist.

    False where there are none, or it cannot be: overlayfs, the root of most containers, takes no
    whiteouts. The layer lies below the jobs that are going on, so it is not made anew but brought
    up to date.
    """
    if not paths:
        return False
    wanted = {f"{layer}{path[len(top) :]}" for path in paths}
    for place, folders, files in os.walk(layer, topdown=False):
        for name in (*folders, *files):
            path = f"{place}/{name}"
            if path not in wanted and not any(one.startswith(path + "/") for one in wanted):
                remove_tree(path)
    try:
        os.makedirs(layer, exist_ok=True)
        for path in sorted(wanted):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not os.path.lexists(path):
                os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    except OSError:
        return False
    for place, _, _ in os.walk(layer):
        info = os.stat(top + place[len(layer) :])
        os.chown(place, info.st_uid, info.st_gid)  # the upper of two merged folders gives these
        os.chmod(place, stat.S_IMODE(info.st_mode))
    return True
