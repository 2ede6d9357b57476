"""Layers above each other, seen as one tree: read by us, without a mount.

What is in a layer is anybody's, and so is a context. Names are looked up by descriptors below the
layer's folder, links are resolved by us with the tree's top as their root, so none leads out of it.
Whiteouts and opaque folders are overlayfs' (``engines/images``). Paths are clean, and have no slash
at the beginning: the top is ``""``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import msgspec
from msgspec.structs import replace

from neuro.dockerfile.copying import Entry
from neuro.dockerfile.ignore import TOP, IgnoreMatcher, Verdict
from neuro.engines.images import records
from neuro.engines.images.places import OPAQUE, is_whiteout
from neuro.engines.images.records import Beside
from neuro.engines.sandbox import kernel

_MOST_LINKS = 40  # as the kernel
_LOOK = os.O_PATH | os.O_NOFOLLOW
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_KEPT = ("user.", "security.capability")
_OVERLAY = "user.overlay."


class LayerFolder(msgspec.Struct, frozen=True):
    """A layer's folder, and the file that says more of what is in it, if there is one.

    ``at`` is where in the tree it lies, "" for the top: what lower layers have there is hidden.
    """

    files: str
    beside: str = ""
    at: str = ""


class Found(msgspec.Struct, frozen=True):
    """Something in a view: in which of its layers, the highest being 0.

    ``is_stored``: it comes from the platform's storage, which keeps of a mode whether a file can be
    executed, and nothing else.
    """

    path: str
    status: os.stat_result
    layer: int
    is_stored: bool = False

    @property
    def mode(self) -> int:
        """Its permissions. What is stored everybody may read: it would be root's alone."""
        mode = stat.S_IMODE(self.status.st_mode)
        if not self.is_stored or self.is_link:
            return mode
        return mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.status.st_mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)


class _Top(msgspec.Struct):
    """The open folder of a layer."""

    fd: int
    layer: LayerFolder
    beside: dict[bytes, Beside] | None = None

    def is_below(self, path: str) -> bool:
        """Whether all of the layer lies below a path, and none of it at it."""
        at = self.layer.at
        return at != "" and (path == "" or at.startswith(f"{path}/"))

    def open(self, path: str, flags: int) -> int:
        within = path.removeprefix(self.layer.at).removeprefix("/")
        return kernel.open_below(self.fd, within or ".", flags)

    def status(self, path: str) -> os.stat_result | None:
        at = self.layer.at
        if at and path != at and not path.startswith(f"{at}/"):
            return None
        try:
            fd = self.open(path, _LOOK)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def told(self, path: str) -> Beside | None:
        """What the file beside the layer says of a path."""
        if self.beside is None:
            self.beside = {}
            if self.layer.beside and os.path.exists(self.layer.beside):
                with open(self.layer.beside, encoding="ascii") as file:
                    self.beside = records.read(file)
        return self.beside.get(os.fsencode(path))


class View:
    """A tree made of layers, the lowest first. To be closed. Raises OSError."""

    def __init__(self, layers: Sequence[LayerFolder]) -> None:
        self._tops: list[_Top] = []
        try:
            for layer in reversed(layers):
                fd = kernel.open_without_links(layer.files, os.O_PATH | os.O_DIRECTORY)
                self._tops.append(_Top(fd, layer))
        except BaseException:
            self.close()
            raise
        # In which layers each folder is that was looked into.
        self._folders: dict[str, tuple[int, ...]] = {}

    def close(self) -> None:
        for top in self._tops:
            os.close(top.fd)
        self._tops = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, path: str) -> Found | None:
        """What is at a path none of whose folders is a link; a link is found itself."""
        return self._look(path)[0]

    def _look(self, path: str) -> tuple[Found | None, tuple[int, ...]]:
        """What is there, and the layers that a folder is made of."""
        first: Found | None = None
        layers: list[int] = []
        above: Sequence[int] = range(len(self._tops))
        if path:
            above = self._layers(path.rpartition("/")[0])
        for number in above:
            if self._tops[number].is_below(path):
                layers.append(number)  # the template has the folders on the way
                continue
            status = self._tops[number].status(path)
            if status is None:
                continue
            if is_whiteout(status):
                break
            is_folder = stat.S_ISDIR(status.st_mode)
            if first is None:
                first = Found(path, status, number)
            if not is_folder:
                break
            layers.append(number)
            if self._is_opaque(number, path):
                break
        return first, tuple(layers) if first is not None and first.is_folder else ()

    def _layers(self, folder: str) -> tuple[int, ...]:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = self._look(folder)[1]
        return known

    def _is_opaque(self, number: int, path: str) -> bool:
        if number == len(self._tops) - 1:
            return False  # it hides nothing
        at = self._tops[number].layer.at
        if at and path == at and self._tops[number + 1].layer.at != at:
            return True
        fd = self._tops[number].open(path, _LIST)
        try:
            return os.getxattr(fd, OPAQUE) == b"y"
        except OSError:
            return False
        finally:
            os.close(fd)

    def changed(self, path: str) -> None:
        """The highest layer has something else at this path than it had."""
        self._folders.pop(path, None)

    def forget(self) -> None:
        """The highest layer has changed anywhere."""
        self._folders.clear()

    def real(self, path: str) -> str:
        """Where a path leads, all links resolved; what is not there stays as it is written.

        Raises OSError (ELOOP).
        """
        waiting = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name in ("", "."):
                continue
            if name == "..":
                done = done[:-1]
                continue
            here = "/".join((*done, name))
            found = self.find(here)
            if found is None or not found.is_link:
                done.append(name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = self.read_link(found)
            waiting += target.split("/")[::-1]
            if target.startswith("/"):
                done = []
        return "/".join(done)

    def follow(self, path: str) -> Found | None:
        """What a path leads to, through links."""
        return self.find(self.real(path))

    def is_folder(self, path: str) -> bool:
        """Whether a path leads to a folder."""
        found = self.follow(path)
        return found is not None and found.is_folder

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted."""
        found: dict[str, bool] = {}
        for number in self._layers(folder):
            if self._tops[number].is_below(folder):
                continue
            fd = self._tops[number].open(folder, _LIST)
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        if entry.name not in found:
                            found[entry.name] = not _is_whiteout(entry)
            finally:
                os.close(fd)
        return sorted(name for name, is_there in found.items() if is_there)

    def entries(self, start: str = "") -> Iterator[Entry]:
        """Everything below a path, and what is at it: each folder stands before what is in it."""
        waiting = [start]
        while waiting:
            path = waiting.pop()
            found = self.find(path)
            if found is None:
                continue
            if path:
                yield Entry(path, found.is_folder)
            if found.is_folder:
                waiting += [_below(path, name) for name in reversed(self.names(path))]

    def open(self, found: Found) -> int:
        """A file's descriptor. Raises OSError."""
        return self._tops[found.layer].open(found.path, _READ)

    def read(self, path: str, most: int) -> str:
        """The text of a plain file, as far as so many bytes; nothing where there is none."""
        found = self.follow(path)
        if found is None or not found.is_file:
            return ""
        fd = self.open(found)
        try:
            return os.read(fd, most).decode("utf-8", "replace")
        finally:
            os.close(fd)

    def read_link(self, found: Found) -> str:
        fd = self._tops[found.layer].open(found.path, _LOOK)
        try:
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def owner(self, found: Found) -> tuple[int, int]:
        """User and group, also where this machine cannot give them."""
        told = self._tops[found.layer].told(found.path)
        if told is not None and told.owner is not None:
            return told.owner
        return found.status.st_uid, found.status.st_gid

    def device(self, found: Found) -> tuple[str, int, int] | None:
        """What device an empty file stands for."""
        told = self._tops[found.layer].told(found.path)
        return told.device if told is not None else None

    def xattrs(self, found: Found) -> dict[str, bytes]:
        """Those that belong to a file or folder, not to overlays."""
        if not (found.is_file or found.is_folder):
            return {}
        told = self._tops[found.layer].told(found.path)
        kept = dict(told.xattrs) if told is not None and told.xattrs else {}
        try:
            fd = self._tops[found.layer].open(found.path, _READ)
        except OSError:
            return kept
        try:
            for name in os.listxattr(fd):
                if name.startswith(_KEPT) and not name.startswith(_OVERLAY):
                    kept[name] = os.getxattr(fd, name)
        except OSError:
            pass  # the file system has none
        finally:
            os.close(fd)
        return kept


class Context(View):
    """A build's context: a folder, less what ``.dockerignore`` says. All of it is root's."""

    def __init__(self, folder: str, ignored: IgnoreMatcher, *, is_stored: bool = False) -> None:
        """``is_stored`` as in Found."""
        super().__init__((LayerFolder(folder),))
        self.folder = folder
        self._is_stored = is_stored
        self._ignored = ignored
        self._verdicts: dict[str, Verdict] = {"": TOP}

    @classmethod
    def again(cls, other: Context) -> Context:
        """The same context, for another thread; it is to be closed as well."""
        return cls(other.folder, other._ignored, is_stored=other._is_stored)

    def _look(self, path: str) -> tuple[Found | None, tuple[int, ...]]:
        found, layers = super()._look(path)
        if found is not None and self._is_stored:
            found = replace(found, is_stored=True)
        return found, layers

    def find(self, path: str) -> Found | None:
        """See View."""
        found = super().find(path)
        if found is None or not path:
            return found
        verdict = self._verdict(path)
        if not verdict.ignored:
            return found
        # A folder that is left out is there for what is taken back in.
        below = found.is_folder and self._ignored.may_keep_below(path, verdict)
        return found if below and any(not one.is_folder for one in self.entries(path)) else None

    def leaves_out(self, path: str) -> bool:
        """Whether ``.dockerignore`` names a path, whatever is there."""
        return self._ignored.ignores(path)

    def ignores_below(self, path: str) -> bool:
        """Whether anything at or below a path is left out."""
        kept = sum(1 for _ in self.entries(path))
        with View((LayerFolder(self.folder),)) as whole:
            return kept != sum(1 for _ in whole.entries(path))

    def entries(self, start: str = "") -> Iterator[Entry]:
        """See View."""
        yield from self._walk(start, super().find)

    def _walk(self, start: str, find: Callable[[str], Found | None]) -> Iterator[Entry]:
        waiting = [start]
        held: list[str] = []  # folders that are left out, as long as nothing in them is not
        while waiting:
            path = waiting.pop()
            found = find(path)
            if found is None:
                continue
            held = [one for one in held if path.startswith(f"{one}/")]
            verdict = self._verdict(path)
            if verdict.ignored:
                if not found.is_folder or not self._ignored.may_keep_below(path, verdict):
                    continue
                held.append(path)
            elif path:
                for folder in held:
                    yield Entry(folder, True)
                held = []
                yield Entry(path, found.is_folder)
            if found.is_folder:
                waiting += [_below(path, name) for name in reversed(self.names(path))]

    def _verdict(self, path: str) -> Verdict:
        known = self._verdicts.get(path)
        if known is None:
            above = self._verdict(path.rpartition("/")[0])
            known = self._verdicts[path] = self._ignored.verdict(path, above)
        return known

    def owner(self, found: Found) -> tuple[int, int]:
        """See View."""
        return 0, 0

    def xattrs(self, found: Found) -> dict[str, bytes]:
        """See View."""
        return {}


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False):
        return False
    return is_whiteout(entry.stat(follow_symlinks=False))
