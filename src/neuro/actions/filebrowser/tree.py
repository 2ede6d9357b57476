"""The files below one folder, and no way out of it.

Every name is opened from the descriptor of the folder above it and without following links, so
nothing that changes meanwhile leads outside. Links are followed here, step by step, as far as they
stay below the root.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO

from neuro.actions.filebrowser.refusal import Refusal, not_found

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MOST_LINKS = 40
_PART = ".part-of-upload-"

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a folder, as what it is or what the link leads to."""

    name: str
    is_folder: bool
    is_file: bool
    is_link: bool
    size: int
    modified: float


def parse(parts: list[str]) -> Path:
    """Check names that came from outside. Raises Refusal for those that lead elsewhere."""
    for part in parts:
        check_name(part)
    return tuple(parts)


def check_name(name: str) -> str:
    """One name of a file or a folder. Raises Refusal."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise Refusal(HTTPStatus.BAD_REQUEST, "bad-name", name.replace("\0", "?"))
    return name


class Tree:
    """The folder that is shown."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._descriptor = os.open(self._root, _FOLDER)

    def close(self) -> None:
        os.close(self._descriptor)

    @contextlib.contextmanager
    def folder(self, path: Path) -> Iterator[int]:
        """The descriptor of a folder. Raises Refusal where there is none."""
        with self._walk(path) as (stack, last):
            if last is not None:
                raise not_found(path[-1])
            yield stack[-1]

    def entries(self, path: Path) -> list[Entry]:
        """What is in a folder, unsorted; uploads that go on are left out."""
        with self.folder(path) as descriptor:
            with os.scandir(descriptor) as found:
                names = [each.name for each in found if not each.name.startswith(_PART)]
            return [entry for name in names if (entry := self._entry(path, descriptor, name))]

    def _entry(self, path: Path, descriptor: int, name: str) -> Entry | None:
        try:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None  # Deleted a moment ago.
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link:
            with contextlib.suppress(Refusal, OSError):
                found = self.stat((*path, name))
        mode = found.st_mode
        return Entry(
            name=name,
            is_folder=stat.S_ISDIR(mode),
            is_file=stat.S_ISREG(mode),
            is_link=is_link,
            size=found.st_size,
            modified=found.st_mtime,
        )

    def stat(self, path: Path) -> os.stat_result:
        """What a name below the root is, links followed. Raises Refusal."""
        with self._walk(path) as (stack, last):
            if last is None:
                return os.fstat(stack[-1])
            return os.stat(last, dir_fd=stack[-1], follow_symlinks=False)

    def open(self, path: Path) -> BinaryIO:
        """A file to read. Raises Refusal for what is not a file."""
        with self._walk(path) as (stack, last):
            if last is None:
                raise not_found(path[-1] if path else "/")
            descriptor = os.open(last, _FILE, dir_fd=stack[-1])
        file = os.fdopen(descriptor, "rb")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            file.close()
            raise not_found(path[-1])
        return file

    @contextlib.contextmanager
    def receive(self, path: Path) -> Iterator[BinaryIO]:
        """A file to write, which has its name when the context ends well; folders are made."""
        check_name(path[-1])
        self._make_all(path[:-1])
        with self.folder(path[:-1]) as folder:
            if self._is_folder(folder, path[-1]):
                raise Refusal(HTTPStatus.CONFLICT, "folder-exists", path[-1])
            part = _PART + secrets.token_hex(8)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o666, dir_fd=folder)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    yield file
                    self._keep_mode(folder, path[-1], descriptor)
                os.rename(part, path[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=folder)
                raise

    @staticmethod
    def _keep_mode(folder: int, name: str, descriptor: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            replaced = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISREG(replaced):
                os.fchmod(descriptor, replaced & 0o777)

    def _make_all(self, path: Path) -> None:
        for depth in range(1, len(path) + 1):
            with contextlib.suppress(FileExistsError), self.folder(path[: depth - 1]) as folder:
                os.mkdir(path[depth - 1], dir_fd=folder)

    @staticmethod
    def _is_folder(folder: int, name: str) -> bool:
        try:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(mode)

    def make_folder(self, path: Path) -> None:
        """Make one folder. Raises FileExistsError."""
        with self.folder(path[:-1]) as folder:
            os.mkdir(path[-1], dir_fd=folder)

    def move(self, source: Path, target: Path) -> None:
        """Move or rename; what is there already stays. Raises FileExistsError."""
        with self.folder(source[:-1]) as old, self.folder(target[:-1]) as new:
            os.stat(source[-1], dir_fd=old, follow_symlinks=False)
            try:
                os.stat(target[-1], dir_fd=new, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(source[-1], target[-1], src_dir_fd=old, dst_dir_fd=new)
            else:
                raise Refusal(HTTPStatus.CONFLICT, "exists", target[-1])

    def delete(self, path: Path) -> None:
        """Delete a file, a link, or a folder with all that is in it."""
        with self.folder(path[:-1]) as folder:
            if self._is_folder(folder, path[-1]):
                shutil.rmtree(path[-1], dir_fd=folder)
            else:
                os.unlink(path[-1], dir_fd=folder)

    def files_below(self, path: Path) -> Iterator[tuple[str, BinaryIO | None]]:
        """Every folder (None) and every file, open, with its path from here; links are left out."""
        with self.folder(path) as top:
            for folder, folders, files, descriptor in os.fwalk(".", dir_fd=top):
                prefix = "" if folder == "." else folder.removeprefix("./") + "/"
                if prefix and not folders and not files:
                    yield prefix, None
                folders.sort()
                for name in sorted(files):
                    if name.startswith(_PART):
                        continue
                    try:
                        number = os.open(name, _FILE, dir_fd=descriptor)
                    except OSError:
                        continue  # A link, or not for this user, or gone.
                    with os.fdopen(number, "rb") as file:
                        if stat.S_ISREG(os.fstat(number).st_mode):
                            yield prefix + name, file

    @contextlib.contextmanager
    def _walk(self, path: Path) -> Iterator[tuple[list[int], str | None]]:
        """The descriptors from the root to a folder, and the name in it where that is no folder."""
        with contextlib.ExitStack() as opened:
            yield self._resolve(path, opened)

    def _resolve(self, path: Path, opened: contextlib.ExitStack) -> tuple[list[int], str | None]:
        stack = [self._descriptor]
        names = list(reversed(path))
        links = 0
        while names:
            name = names.pop()
            if name in {"", "."}:
                continue
            if name == "..":  # Only of a link: names from outside are checked before.
                if len(stack) == 1:
                    raise not_found(path[-1])
                stack.pop()
                continue
            mode = os.stat(name, dir_fd=stack[-1], follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                links += 1
                if links > _MOST_LINKS:
                    raise not_found(path[-1])
                target = os.readlink(name, dir_fd=stack[-1])
                if target.startswith("/"):
                    if not (target + "/").startswith(self._root.rstrip("/") + "/"):
                        raise not_found(path[-1])
                    target = target[len(self._root) :]
                    del stack[1:]
                names += reversed(target.split("/"))
            elif stat.S_ISDIR(mode):
                descriptor = os.open(name, _FOLDER, dir_fd=stack[-1])
                opened.callback(os.close, descriptor)
                stack.append(descriptor)
            elif any(rest not in {"", "."} for rest in names):
                raise not_found(path[-1])
            else:
                return stack, name
        return stack, None
