"""The root of a step, made by its first process in the step's own user and mount namespaces.

It is put together where nothing but the builder is, entered, and the job's own root let go of. A
base image can hold anything: nothing here follows a link out of the root that is made.

Places for mounts that the layers do not have are made first, in a layer of their own: in the
writable one they would look like changes of the command's. The kernel copies the folders above into
that layer, with all that they are, so nothing else about them changes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from neuro.builder import uppers
from neuro.engines.sandbox import image_root, inside, kernel
from neuro.engines.sandbox.kernel import (
    ATTR_NODEV,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
)
from neuro.engines.sandbox.nesting import PLACE, Given

TYPE_CHECKING = False  # what begins steps imports little
if TYPE_CHECKING:
    from typing import Any

APT_CONFIG = "/dev/apt.conf"  # of the step's own /dev, so it is in no layer
_APT = 'APT::Sandbox::User "root";\n'
_FLAGS = MS_NOSUID | MS_NODEV
_SIZE = "mode=0755,size=64m,nr_inodes=16k"
_RUN = "mode=0755,size=256m,nr_inodes=64k"
_MOST = 400  # layers of one overlay; the kernel takes 500
_OPTIONS = 4000  # bytes; a mount has a page of them
_SYSTEM = ("proc", "sys", "dev")
_OF_THE_JOB = ("hosts", "resolv.conf")


class NoRoot(Exception):
    """The root cannot be made; the sentence is for whoever builds the image."""


class Part:
    """An overlay at ``path`` of a root; ``lower`` are its folders, the highest first."""

    def __init__(self, path: str, lower: tuple[str, ...]) -> None:
        self.path = path
        self.lower = lower


class Target:
    """A mount that is not attached yet, and where it is to be."""

    def __init__(self, tree: int, path: str, *, is_folder: bool) -> None:
        self.tree = tree
        self.path = path
        self.is_folder = is_folder


def enter(step: dict[str, Any], given: Given, *, is_single: bool) -> None:
    """Make the root of a step and move into it. Raises NoRoot, Refused, OSError."""
    if not given.writable:
        raise NoRoot(
            "this machine keeps jobs on a file system that cannot hold the layers of an image: put"
            " the server's data on ext4, xfs, btrfs or tmpfs"
        )
    kernel.mount("tmpfs", f"{PLACE}/step", "tmpfs", _FLAGS, _SIZE)
    os.chdir(f"{PLACE}/step")
    for name in (*_SYSTEM, "root", "none", "own", "low"):
        os.mkdir(name)
    shelf = _Shelf(given)
    parts = shelf.parts(step["layers"], host=step["host"])
    own = os.path.commonpath([step["upper"], step["work"]])
    _attach(_tree(own), "own")
    upper, work = (f"own/{os.path.relpath(step[name], own)}" for name in ("upper", "work"))
    targets = _targets(step, shelf, is_single=is_single)
    stubs = _make_places(parts, work, targets, given, host=step["host"])
    _assemble(parts, stubs, upper, work, given, host=step["host"])
    _system(is_single=is_single)
    system = [(kernel.copy_tree(name), name) for name in _SYSTEM]
    files = [(name, kernel.copy_tree(f"/etc/{name}")) for name in _OF_THE_JOB]
    os.chdir("root")
    kernel.enter_root()
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for tree, name in system:
        _attach_to(tree, image_root.folder(root, name))
    for name, tree in files:
        kernel.set_attributes(tree, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
        image_root.give(root, name, tree)
    os.close(root)
    inside.mount_volumes([(one.tree, one.path, one.is_folder) for one in targets])
    for one in targets:
        os.close(one.tree)
    inside.make_working_folder(step["working_dir"])


class _Shelf:
    """Folders of layers, each attached once below the place that we are in."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._names: dict[str, str] = {}
        self._views = 0

    def parts(self, layers: Sequence[str], *, host: bool) -> list[Part]:
        """The overlays of a root of these layers, outer ones first. Raises NoRoot, OSError."""
        names = [self._name(layer) for layer in layers]
        if not host:
            return [Part("/", self._chain(names))]
        given = self._given
        if given.covered:
            raise NoRoot(
                "no image can be made of this machine's userland, because data of the platform lies"
                f" in the middle of it ({given.covered[0]}): start from an image of a registry"
            )
        return [
            Part(
                path,
                (
                    *(f"{name}{path}" for name in reversed(names) if _is_folder(name, path)),
                    *(f"{PLACE}/{one}" for one in lower),
                ),
            )
            for path, lower in zip(given.overlays, given.lower, strict=True)
        ]

    def view(self, layers: Sequence[str], *, host: bool) -> int:
        """The root of these layers, to look things up in. Raises NoRoot, OSError."""
        name = f"view-{self._views}"
        self._views += 1
        os.mkdir(name)
        for part in self.parts(layers, host=host):
            _overlay(part.lower, name + part.path.rstrip("/"), f"{name}{part.path}")
        return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def _name(self, layer: str) -> str:
        name = self._names.get(layer)
        if name is None:
            # By names as short as can be, most fit in the page of options that a mount has.
            name = self._names[layer] = str(len(self._names))
            os.mkdir(name)
            _attach(_tree(layer), name)
        return name

    def _chain(self, names: Sequence[str]) -> tuple[str, ...]:
        if len(names) <= _MOST:
            return tuple(reversed(names))
        if len(names) > 2 * _MOST:
            raise NoRoot(f"{len(names)} layers are more than a root can be made of")
        # Only the lowest can be an overlay of their own: see ``image_root``.
        _overlay(tuple(reversed(names[:_MOST])), "low", "low")
        return (*reversed(names[_MOST:]), "low")


def _is_folder(layer: str, path: str) -> bool:
    if path == "/":
        return True
    folder = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = kernel.open_without_links(path[1:], os.O_PATH | os.O_DIRECTORY, folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False
    finally:
        os.close(folder)
    os.close(found)
    return True


def _overlay(
    lower: Sequence[str], target: str, what: str, writable: tuple[str, str] | None = None
) -> None:
    """Mount an overlay; ``writable`` are its upper and its work folder."""
    flags = _FLAGS
    chain = [kernel.as_option(one) for one in lower]
    if writable is None:
        flags |= MS_RDONLY
        chain += ["none"] * max(0, 2 - len(chain))  # without a writable one it needs two
        options = f"lowerdir={':'.join(chain)},userxattr"
    else:
        upper, work = map(kernel.as_option, writable)
        options = f"lowerdir={':'.join(chain) or 'none'},upperdir={upper},workdir={work},userxattr"
        options += ",volatile"  # see ``inside``
    if len(options) > _OPTIONS:
        raise NoRoot(f"the names of the layers below {what} are too long for a mount")
    try:
        kernel.mount("overlay", target, "overlay", flags, options)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL, errno.ENODEV):
            raise NoRoot(
                "the kernel does not mount layers for a build here"
                f" ({error.strerror}): `neuro doctor` says what this machine lacks"
            ) from error
        raise


def _assemble(
    parts: Sequence[Part],
    stubs: Sequence[str],
    upper: str,
    work: str,
    given: Given,
    *,
    host: bool,
) -> None:
    """Mount the root itself. ``stubs`` are the layers with places, as ``_make_places`` has them."""
    marks: list[list[int]] = []
    for number, part in enumerate(parts):
        writable = upper if not host else f"{work}/{uppers.part(number)}"
        if host:
            os.mkdir(writable)
            _be_like(part.lower[0], writable)
            marks.append(uppers.mark(writable))
        os.mkdir(f"{work}/{number}")
        lower = (*([stubs[number]] if stubs[number] else []), *part.lower)
        with _Place("root", part.path) as target:
            _overlay(lower, target, part.path, (writable, f"{work}/{number}"))
    if host:
        uppers.note(work, [part.path for part in parts], marks)
        _rest_of_userland(given)


def _rest_of_userland(given: Given) -> None:
    """What is in the machine's userland besides its overlays."""
    for path in given.read_only:
        with _Place("root", path) as target:
            kernel.mount(path, target, flags=MS_BIND | MS_REC)
    with _Place("root", "/run") as target:
        kernel.mount("tmpfs", target, "tmpfs", _FLAGS, _RUN)
    os.mkdir("root/run/lock")
    os.chmod("root/run/lock", 0o1777)  # noqa: S103 - as everywhere


def _be_like(lower: str, upper: str) -> None:
    """Let a writable layer's own folder be as the one below it."""
    found = os.stat(lower)
    try:
        os.chown(upper, found.st_uid, found.st_gid)
    except OSError:
        pass  # a plain user's machine: it belongs to nobody there
    os.chmod(upper, stat.S_IMODE(found.st_mode))
    os.utime(upper, ns=(found.st_atime_ns, found.st_mtime_ns))


class _Place:
    """A name by which a folder below a root can be mounted on, through no link that leads out."""

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._path = path
        self._fd = -1

    def __enter__(self) -> str:
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fd = kernel.open_below(root, self._path, os.O_PATH | os.O_DIRECTORY)
        finally:
            os.close(root)
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


# Places.


def _make_places(
    parts: Sequence[Part], work: str, targets: Sequence[Target], given: Given, *, host: bool
) -> list[str]:
    """Make what is missing to mount on; the layer for each overlay, "" where it would be empty."""
    names = []
    for number, part in enumerate(parts):
        stubs = f"{work}/stubs-{number}"
        for name in (stubs, f"{stubs}.work"):
            os.mkdir(name)
        if part.lower:
            _be_like(part.lower[0], stubs)
        with _Place("root", part.path) as target:
            _overlay(part.lower, target, part.path, (stubs, f"{stubs}.work"))
        names.append(stubs)
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        times = _Times(root)
        for name in _SYSTEM:
            os.close(image_root.folder(root, name))
        times.note("/etc")
        for name in _OF_THE_JOB:
            image_root.make_place(root, name)
        for one in sorted(targets, key=lambda one: one.path):
            times.note(one.path)
            inside.make_place(root, one.path, is_folder=one.is_folder)
        times.restore()
    finally:
        os.close(root)
    kernel.unmount("root")
    return [name if os.listdir(name) else "" for name in names]


class _Times:
    """When folders were changed last, before places were made in them."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._known: dict[str, tuple[int, int]] = {}

    def note(self, path: str) -> None:
        """Remember this of all that there is on the way to ``path``."""
        so_far = ""
        for name in path.split("/"):
            so_far += f"/{name}"
            try:
                folder = kernel.open_below(self._root, so_far, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                return
            found = os.fstat(folder)
            self._known.setdefault(
                os.readlink(f"/proc/self/fd/{folder}"), (found.st_atime_ns, found.st_mtime_ns)
            )
            os.close(folder)

    def restore(self) -> None:
        """Let it be so again."""
        for path, times in self._known.items():
            if os.stat(path).st_mtime_ns != times[1]:
                os.utime(path, ns=times)


# What a step is given.


def _targets(step: dict[str, Any], shelf: _Shelf, *, is_single: bool) -> list[Target]:
    found: list[Target] = []
    for number, mount in enumerate(step["mounts"]):
        match mount["kind"]:
            case "bind":
                tree = _bound(mount, shelf)
            case "memory":
                tree = _memory(f"memory-{number}", mount["size"])
            case _:
                tree = _secret(f"secret-{number}", mount, is_single=is_single)
        is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)
        found.append(Target(tree, mount["target"], is_folder=is_folder))
    return found


def _bound(mount: dict[str, Any], shelf: _Shelf) -> int:
    source, attributes = mount["source"], ATTR_NOSUID | ATTR_NODEV
    try:
        if mount["layers"] or mount["host"]:
            view = shelf.view(mount["layers"], host=mount["host"])
            opened = kernel.open_below(view, source)
            os.close(view)
        else:
            opened = kernel.open_without_links(source)
    except OSError as error:
        raise NoRoot(
            f"{source} cannot be mounted at {mount['target']}: {error.strerror}"
        ) from error
    try:
        tree = kernel.copy_tree("", opened)
    finally:
        os.close(opened)
    kernel.set_attributes(tree, attributes | (ATTR_RDONLY if mount["read_only"] else 0))
    return tree


def _memory(name: str, size: int) -> int:
    os.mkdir(name)
    options = f"mode=1777,size={size}" if size else "mode=1777"
    kernel.mount("tmpfs", name, "tmpfs", _FLAGS, options)
    return kernel.copy_tree(name)


def _secret(name: str, mount: dict[str, Any], *, is_single: bool) -> int:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(mount["content"])
        while left:
            left = left[os.write(file, left) :]
        if not is_single:
            os.fchown(file, mount["uid"], mount["gid"])
        os.fchmod(file, mount["mode"] & 0o777)
    finally:
        os.close(file)
    tree = kernel.copy_tree(name)
    kernel.set_attributes(tree, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    return tree


def _system(*, is_single: bool) -> None:
    """The step's /proc, /sys and /dev."""
    inside.mount_proc()
    kernel.mount("/sys", "sys", flags=MS_BIND | MS_REC)
    kernel.mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=0755,size=1m,nr_inodes=1k")
    for name in inside.DEVICES:
        os.close(os.open(f"dev/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        kernel.mount(f"/dev/{name}", f"dev/{name}", flags=MS_BIND)
    for name, destination in inside.LINKS:
        os.symlink(destination, f"dev/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}")
    inside.mount_terminals("dev/pts", plain=is_single)
    whole = os.statvfs("/dev/shm")  # noqa: S108 - the job's own
    options = f"mode=1777,size={whole.f_blocks * whole.f_frsize}"
    kernel.mount("tmpfs", "dev/shm", "tmpfs", _FLAGS, options)
    if is_single:
        with open(f"dev/{os.path.basename(APT_CONFIG)}", "w", encoding="ascii") as file:
            file.write(_APT)


def _tree(path: str) -> int:
    opened = kernel.open_without_links(path, os.O_PATH | os.O_DIRECTORY)
    try:
        return kernel.copy_tree("", opened, recursive=False)
    finally:
        os.close(opened)


def _attach(tree: int, name: str) -> None:
    try:
        kernel.attach_at(tree, name)
    finally:
        os.close(tree)


def _attach_to(tree: int, place: int) -> None:
    try:
        kernel.attach(tree, place)
    finally:
        os.close(tree)
        os.close(place)
