"""COPY and ADD: files of the context, of other stages and images, put into a layer.

As BuildKit has it: the content of a folder is copied, not the folder itself; links that name a
source or lead to the destination are followed, those inside of a folder are copied; a file never
takes a folder's place, nor the other way round.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

import msgspec

from neuro.builder.faults import BuildFault
from neuro.builder.modes import changed, owner
from neuro.builder.placing import NEW_FOLDER, Dress, Placer
from neuro.builder.untarring import is_archive, unpack
from neuro.builder.views import Context, Found, View
from neuro.dockerfile.copying import Copied, MissingSource, copied
from neuro.dockerfile.globs import has_wildcards, matches
from neuro.dockerfile.paths import join
from neuro.dockerfile.steps import AddFiles, CopyFiles, Files, InlineFile, RemoteFile
from neuro.domain.problems import closest
from neuro.engines.images.locks import Lock

_INLINE_MODE, _REMOTE_MODE = 0o644, 0o600
_PIECE = 1 << 20
_MOST_NAMES = 2000  # of a folder that are compared with one that is missing
_SHOWN_NAMES = 10


class Download(msgspec.Struct, frozen=True):
    """A file of a URL that is here: ``time`` is when it changed there, in nanoseconds.

    It stays until ``lock`` is closed.
    """

    path: str
    digest: str
    lock: Lock
    time: int = 0


class Selected(msgspec.Struct, frozen=True):
    """What is copied: ``found`` in its view, with its links followed where they name a source."""

    found: Found
    target: str


class Copying:
    """One COPY or ADD into a placer. ``views`` knows trees by their origins."""

    def __init__(
        self,
        step: CopyFiles,
        placer: Placer,
        views: Callable[[Files], View],
        download: Callable[[RemoteFile], Download],
    ) -> None:
        self._step = step
        self._placer = placer
        self._views = views
        self._download = download
        self._owner = owner(step.chown, placer.view)
        self._is_folder = step.destination.endswith("/")
        self._target = placer.view.real(step.destination)

    def run(self) -> None:
        """Copy all of it. Raises BuildFault, OSError."""
        for source in self._step.sources:
            if isinstance(source, Files):
                self._files(source, self._views(source))
            elif isinstance(source, RemoteFile):
                self._remote(source)
            elif isinstance(source, InlineFile):
                self._inline(source)

    # Single files

    def _inline(self, source: InlineFile) -> None:
        dress = Dress(self._mode(_INLINE_MODE), self._owner or (0, 0))
        self._placer.put_file(self._place_of(source.name), dress, source.content.encode())

    def _remote(self, source: RemoteFile) -> None:
        there = self._download(source)
        fd = os.open(there.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if isinstance(self._step, AddFiles) and self._step.unpack_remote and is_archive(fd):
                self._unpack(fd)
                return
            dress = Dress(self._mode(_REMOTE_MODE), self._owner or (0, 0), there.time)
            self._placer.put_file(self._place_of(source.name), dress, fd)
        finally:
            os.close(fd)

    def _place_of(self, name: str) -> str:
        """Where a file goes that is called so; the folders to it are made."""
        into = self._is_folder or self._placer.view.is_folder(self._target)
        target = _below(self._target, name) if into else self._target
        self._make(target.rpartition("/")[0])
        return target

    def _make(self, folder: str) -> None:
        """Make a folder and those that lead to it; ``--chmod`` is for those as well."""
        mode = changed(NEW_FOLDER, self._step.chmod, is_folder=True) & 0o777
        self._placer.make_folders(folder, self._owner or (0, 0), mode)

    def _unpack(self, fd: int) -> None:
        self._placer.make_folders(self._target, self._owner or (0, 0))
        unpack(fd, self._placer, self._target, self._owner)

    # Files of trees

    def _files(self, source: Files, view: View) -> None:
        destination = f"/{self._target}" + ("/" if self._is_folder and self._target else "")
        chosen = selected(
            view, source, self._step.excludes, destination, self._placer.view.is_folder
        )
        originals: dict[tuple[int, int], str] = {}
        first = True
        for one in chosen:
            if first:
                self._begin()
                first = False
            if self._step.unpack and one.found.is_file and self._unpacked(one, view):
                continue
            self._reach(one, view)
            self._put(one, view, originals)

    def _begin(self) -> None:
        folder = self._target if self._is_folder else self._target.rpartition("/")[0]
        self._make(folder)

    def _unpacked(self, one: Selected, view: View) -> bool:
        """Whether it is an archive, whose content goes to the destination instead of it."""
        fd = view.open(one.found)
        try:
            if not is_archive(fd):
                return False
            self._unpack(fd)
        finally:
            os.close(fd)
        return True

    def _reach(self, one: Selected, view: View) -> None:
        """The folders that lead to a file, as they are in its tree."""
        missing = []
        target = one.target.rpartition("/")[0]
        source = one.found.path.rpartition("/")[0]
        while target and self._placer.view.find(target) is None:
            missing.append((target, source))
            target, source = target.rpartition("/")[0], source.rpartition("/")[0]
        for target, source in reversed(missing):
            found = view.find(source)
            if found is None or not found.is_folder:
                self._make(target)
            else:
                self._placer.put_folder(target, self._dress(found, view))

    def _put(self, one: Selected, view: View, originals: dict[tuple[int, int], str]) -> None:
        found, target = one.found, one.target
        if found.is_folder:
            if target == self._target:
                self._make(target)
            else:
                self._placer.put_folder(target, self._dress(found, view))
            return
        status = found.status
        identity = status.st_dev, status.st_ino
        if status.st_nlink > 1 and identity in originals:
            self._placer.put_hard_link(target, originals[identity])
            return
        dress = self._dress(found, view)
        if found.is_link:
            self._placer.put_link(target, view.read_link(found), dress)
        elif found.is_file:
            device = view.device(found)
            if device is not None:
                self._placer.put_device(target, *device, dress)
                return
            fd = view.open(found)
            try:
                self._placer.put_file(target, dress, fd)
            finally:
                os.close(fd)
        elif stat.S_ISFIFO(status.st_mode):
            self._placer.put_pipe(target, dress)
        else:
            return  # a socket means nothing without its process, and nobody makes devices
        if status.st_nlink > 1:
            originals[identity] = target

    def _dress(self, found: Found, view: View) -> Dress:
        mode = found.mode
        if not found.is_link:
            mode = changed(mode, self._step.chmod, is_folder=found.is_folder)
        return Dress(
            mode,
            self._owner or view.owner(found),
            found.status.st_mtime_ns,
            tuple(view.xattrs(found).items()),
        )

    def _mode(self, mode: int) -> int:
        return changed(mode, self._step.chmod, is_folder=False)


def selected(
    view: View,
    files: Files,
    excludes: Sequence[str],
    destination: str,
    is_folder: Callable[[str], bool],
) -> Iterator[Selected]:
    """What COPY takes of a tree, and where it goes. Raises BuildFault for what is not there."""
    pattern = files.source.strip("/")
    plain, rest = _split(pattern)
    real = view.real(plain)
    if not rest and not files.include:
        found = view.find(real)
        if found is None:
            raise missing(plain, view)
        if not found.is_folder:
            name = plain.rpartition("/")[2]
            into = destination.endswith("/") or is_folder(destination.strip("/"))
            yield Selected(found, join(destination, name).strip("/") if into else destination[1:])
            return
    escaped = re.sub(r"([*?\[\\])", r"\\\1", real) if rest else real
    wanted = join("/", escaped, rest)
    asked = Files(files.origin, wanted, files.include)
    if files.required and view.follow(files.required.strip("/")) is None:
        raise missing(files.required.strip("/"), view)
    try:
        for one in copied(
            asked,
            excludes,
            destination,
            view.entries(real),
            lambda path: is_folder(path.strip("/")),
        ):
            yield from _followed(view, one, wanted.strip("/") if rest else "")
    except MissingSource:
        raise missing(plain, view) from None


def _followed(view: View, one: Copied, pattern: str) -> Iterator[Selected]:
    """A thing; of a link that a pattern found, what it leads to."""
    found = view.find(one.path)
    if found is None:
        return
    if found.is_link and pattern and matches(pattern, one.path):
        found = view.follow(one.path)
        if found is None:
            raise missing(one.path, view)
    yield Selected(found, one.target.strip("/"))


def _split(pattern: str) -> tuple[str, str]:
    """The folders above the first name with wild cards, and the rest."""
    names = pattern.split("/") if pattern else []
    for at, name in enumerate(names):
        if has_wildcards(name):
            return _unescaped("/".join(names[:at])), "/".join(names[at:])
    return _unescaped(pattern), ""


def _unescaped(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)


def missing(path: str, view: View) -> BuildFault:
    """What to say of a source that is not there, with a name that is close to it."""
    sentence = f"There is no '{path}'."
    wanted = path
    parts = path.split("/")
    for number in range(1, len(parts)):
        above = "/".join(parts[:number])
        found = view.follow(above)
        if found is None:
            wanted = above
            break
        if not found.is_folder:
            return BuildFault(sentence, f"'{above}' is not a folder.")
    folder, _, name = wanted.rpartition("/")
    real = view.real(folder)
    names = view.names(real)[:_MOST_NAMES]
    link = view.find(f"{real}/{name}".strip("/"))
    if link is not None and link.is_link:
        dangling = f"'{wanted}' is a link to '{view.read_link(link)}', which is not there."
        return BuildFault(dangling) if wanted == path else BuildFault(sentence, dangling)
    if isinstance(view, Context) and view.leaves_out(path):
        return BuildFault(sentence, f"`.dockerignore` leaves it out: a line !{path} keeps it.")
    near = closest(name, names)
    if near is not None:
        return BuildFault(sentence, f"Did you mean '{join(folder, near)}'?")
    where = f"'{folder}'" if folder else "The folder that it is copied from"
    if not names:
        return BuildFault(sentence, f"{where} is empty.")
    more = " and more" if len(names) > _SHOWN_NAMES else ""
    return BuildFault(sentence, f"{where} has {', '.join(names[:_SHOWN_NAMES])}{more}.")


# What decides a COPY's content, for the key of its layer.


class Digests:
    """Digests of what is copied, each file read once. One for each build."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int, int, int], str] = {}

    def of(self, view: View, files: Sequence[Files], excludes: Sequence[str]) -> str:
        """Of everything that is chosen: names, modes, owners and contents. Raises BuildFault."""
        seen = hashlib.sha256()
        for source in files:
            seen.update(b"\0source\0")
            for one in selected(view, source, excludes, "/", lambda path: True):
                seen.update(self._line(view, one).encode("utf-8", "surrogateescape"))
        return seen.hexdigest()

    def _line(self, view: View, one: Selected) -> str:
        status = one.found.status
        kind = stat.S_IFMT(status.st_mode)
        content = ""
        if one.found.is_link:
            content = view.read_link(one.found)
        elif one.found.is_file:
            content = self._file(view, one.found)
        mode = 0 if one.found.is_link else one.found.mode
        attributes = sorted(view.xattrs(one.found).items())
        told = (one.target, kind, mode, view.owner(one.found), content, attributes)
        return f"{told!r}\n"

    def _file(self, view: View, found: Found) -> str:
        status = found.status
        key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        known = self._files.get(key)
        if known is None:
            fd = view.open(found)
            try:
                known = self._files[key] = digest_of(fd)
            finally:
                os.close(fd)
        return known


def digest_of(fd: int) -> str:
    """The SHA-256 of what an open file holds from here on."""
    seen = hashlib.sha256()
    while piece := os.read(fd, _PIECE):
        seen.update(piece)
    return seen.hexdigest()


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
