"""The root of a run that has an image, in place of the berth's: its layers, a private one above.

The second process makes it (``becoming``), in namespaces of the run's own and without rights over
the host, once the run is known. The berth's root, which is made before, is where it begins. An
image can hold anything: nothing here follows a link out of it, and nothing needs a file of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from neuro.engines.sandbox import inside, kernel
from neuro.engines.sandbox.kernel import MS_NODEV, MS_NOSUID

TYPE_CHECKING = False  # what a step of a build begins with is loaded for each
if TYPE_CHECKING:
    from neuro.engines.sandbox.userland import Userland

_PLACE = "/mnt"  # of the berth's root: nothing has run in it yet
_SIZE = "mode=0755,size=1m,nr_inodes=4k"
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OPAQUE = "user.overlay.opaque"
_SYSTEM = ("proc", "sys", "dev")
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GIVEN = ("hosts", "hostname", "resolv.conf")  # of the berth's /etc, which has those of the run


class Own:
    """The run's own layers: ``uppers`` are names in the tree ``private``.

    Without that tree they are kept in ``memory`` bytes, as the file system of the engine's folder
    can hold no such layer.
    """

    __slots__ = ("memory", "private", "uppers")

    def __init__(self, private: int | None, uppers: Sequence[str], memory: int) -> None:
        self.private = private
        self.uppers = uppers
        self.memory = memory


def enter(layers: Sequence[int], own: Own) -> None:
    """Make the root of the trees ``layers``, the lowest first, and move into it. Raises OSError."""
    given = _begin(layers, own)
    names = [str(number) for number in range(len(layers))]
    _mount(names[::-1], "root", own.uppers[0])
    _finish(given)


def enter_above(
    land: Userland, grounds: Sequence[Sequence[int]], layers: Sequence[int], own: Own
) -> None:
    """The same for layers that lie above the machine's userland: see ``inside.make_root``.

    It is made as that of a run without an image, with more below each overlay. Each folder of the
    machine lies at its own place and at no other, whatever links the layers have: so what covers
    some of them covers all ways there. Raises OSError.
    """
    shown = [(path, kernel.copy_tree(path)) for path in land.read_only]
    given = _begin(layers, own)
    names = [str(number) for number in range(len(layers))]
    for number, (path, ground) in enumerate(zip(("/", *land.overlays), grounds, strict=True)):
        below = []
        for at, tree in enumerate(ground):
            below.append(f"ground-{number}-{at}")
            os.mkdir(below[-1])
            _attach(os.dup(tree), _open(below[-1]))
        inside_layers, hides = _having(names[::-1], path.rstrip("/"))
        lowers = inside_layers if hides else [*inside_layers, *below]
        if path == "/":
            _mount(lowers, "root", own.uppers[number])
            continue
        place = _make_place(path)
        try:
            _mount(lowers, _named(place), own.uppers[number])
        finally:
            os.close(place)
    for path, tree in shown:
        _show(tree, path)
    inside.cover(land, "root", _at)
    os.close(_make_place("/run"))
    inside.make_run_folder("root")
    _finish(given)


def _make_place(path: str) -> int:
    """Open a folder below the root; what else the layers have on the way there gives way to it."""
    place = _open("root")
    for name in path.strip("/").split("/"):
        try:
            below = folder(place, name)
        finally:
            os.close(place)
        place = below
    return place


def _named(place: int) -> str:
    """A name by which something can be mounted on an open folder."""
    return f"/proc/self/fd/{place}"


def _show(tree: int, path: str) -> None:
    """Attach a folder of the machine, unless the layers took its place away."""
    place = _find(path)
    if place is None:
        os.close(tree)
    else:
        _attach(tree, place)


def _find(path: str) -> int | None:
    """Open a folder below the root; None where the layers have something else on the way there."""
    root = _open("root")
    try:
        return kernel.open_without_links(path.strip("/"), _FOLDER, root)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    finally:
        os.close(root)


def _at(path: str, mount: Callable[[str], None]) -> None:
    """Mount on a folder below the root, if it is there.

    If not, the layers hide it: nothing of the machine lies at another place than its own.
    """
    place = _find(path)
    if place is not None:
        try:
            mount(_named(place))
        finally:
            os.close(place)


def _having(names: Sequence[str], path: str) -> tuple[list[str], bool]:
    """The folders at a path in layers, the highest first; whether one hides all that is below."""
    found = []
    for name in names:
        try:
            folder = kernel.open_without_links(f"{name}{path}", _LIST)
        except OSError:
            continue  # it has none, or something else there
        found.append(f"{name}{path}")
        try:
            if path and _OPAQUE in os.listxattr(folder):
                return found, True
        finally:
            os.close(folder)
    return found, False


def _begin(layers: Sequence[int], own: Own) -> list[tuple[str, int]]:
    """Attach what the root is made of, by short names; the run's own files of /etc."""
    given = [(name, kernel.copy_tree(f"/etc/{name}")) for name in _GIVEN]
    flags = MS_NOSUID | MS_NODEV
    kernel.mount("tmpfs", _PLACE, "tmpfs", flags, _SIZE)
    os.chdir(_PLACE)
    # By names as short as can be, all of them fit in the page of options that a mount has.
    for number, tree in enumerate(layers):
        os.mkdir(str(number))
        _attach(os.dup(tree), _open(str(number)))
    for name in ("none", "private", "root"):
        os.mkdir(name)
    if own.private is not None:
        _attach(os.dup(own.private), _open("private"))
    else:
        kernel.mount("tmpfs", "private", "tmpfs", flags, f"mode=0755,size={own.memory}")
        for upper in own.uppers:
            os.mkdir(f"private/{upper}")
            os.mkdir(f"private/{upper}.work")
    return given


def _mount(lowers: Sequence[str], target: str, upper: str) -> None:
    """Mount an overlay of ``lowers``, the highest first, with a layer of the run's own above."""
    lower = ":".join(map(kernel.as_option, lowers)) or "none"
    # See ``inside`` for "volatile".
    options = f"lowerdir={lower},upperdir=private/{upper},workdir=private/{upper}.work"
    flags = MS_NOSUID | MS_NODEV
    kernel.mount("overlay", target, "overlay", flags, f"{options},userxattr,volatile")


def _finish(given: Sequence[tuple[str, int]]) -> None:
    """Put into the root what every run has, and move there."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _SYSTEM:
            _attach(kernel.copy_tree(f"/{name}"), folder(root, name))
        for name, tree in given:
            give(root, name, tree)
    finally:
        os.close(root)
    os.chdir("root")
    kernel.enter_root()


def _open(name: str) -> int:
    return os.open(name, _FOLDER)


def _attach(tree: int, place: int) -> None:
    """Attach a tree at a place, and close both."""
    try:
        kernel.attach(tree, place)
    finally:
        os.close(tree)
        os.close(place)


def folder(root: int, name: str) -> int:
    """Open a folder right below ``root``; whatever else the image has there gives way to it."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=root)
            os.mkdir(name, 0o755, dir_fd=root)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=root)
    return os.open(name, _FOLDER, dir_fd=root)


def give(root: int, name: str, tree: int) -> None:
    """Put one of the run's own files into /etc, unless the image has a folder of that name."""
    try:
        place = _in_etc(root, name)
        if place is not None:
            kernel.attach(tree, place)
            os.close(place)
    finally:
        os.close(tree)


def make_place(root: int, name: str) -> None:
    """Make the place of one of the run's own files in /etc, as ``give`` does. Raises OSError."""
    place = _in_etc(root, name)
    if place is not None:
        os.close(place)


def _in_etc(root: int, name: str) -> int | None:
    etc = folder(root, "etc")
    try:
        return _file(etc, name)
    finally:
        os.close(etc)


def _file(etc: int, name: str) -> int | None:
    try:
        kind = stat.S_IFMT(os.stat(name, dir_fd=etc, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        kind = 0
    if kind == stat.S_IFDIR:
        return None
    if kind not in (0, stat.S_IFREG):  # such as a link to a file that a service of Ubuntu's makes
        os.unlink(name, dir_fd=etc)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    if kind != stat.S_IFREG:
        flags |= os.O_CREAT | os.O_EXCL
    else:
        flags |= os.O_PATH
    return os.open(name, flags, 0o644, dir_fd=etc)
