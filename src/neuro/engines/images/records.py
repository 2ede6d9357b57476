"""What the files of a layer cannot say of themselves, in a file beside them.

An unpacked file has no owner that this user cannot give it, and no device is made. An image that
is saved again has them from here. The unpacker writes as it goes, so memory does not grow with
the layer; what a later entry replaces is told as "gone", and holds for all that came before it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from neuro.engines.images.limits import Limits

_LONGEST_LINE = 4 << 20  # of JSON: a name, or attributes of 1 MiB in an archive


@dataclass(slots=True)
class Beside:
    """Of one file: its owner, what device it stands for, extended attributes, and about folders.

    ``opaque`` is a folder that hides those of layers below; ``implied`` one that the layer has
    no entry for, whose mode and owner are therefore those of layers below.
    """

    owner: tuple[int, int] | None = None
    device: tuple[str, int, int] | None = None
    xattrs: dict[str, bytes] | None = None
    opaque: bool = False
    implied: bool = False


_OF_FOLDERS = frozenset(("opaque", "implied", "gone"))


class Recorder:
    """Writes such a file, one line of JSON for each thing that is to be known.

    Each method raises ImageFault where that gets more than ``limits`` allow.
    """

    def __init__(self, file: IO[str], limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._size = 0
        self._told = 0  # lines about folders

    def owner(self, path: bytes, user: int, group: int) -> None:
        self._write(path, owner=[user, group])

    def device(self, path: bytes, kind: str, major: int, minor: int) -> None:
        self._write(path, device=[kind, major, minor])

    def xattrs(self, path: bytes, values: dict[str, bytes]) -> None:
        encoded = {name: base64.b64encode(value).decode() for name, value in values.items()}
        self._write(path, xattrs=encoded)

    def opaque(self, path: bytes) -> None:
        self._write(path, opaque=True)

    def implied(self, path: bytes) -> None:
        self._write(path, implied=True)

    def gone(self, path: bytes) -> None:
        """What is at ``path`` was replaced, with all below it."""
        if self._size:
            self._write(path, gone=True)

    def told(self, path: bytes) -> None:
        """The layer has an entry for this folder, which may have been made for what is in it."""
        if self._size:
            self._write(path, implied=False)

    def _write(self, path: bytes, **what: object) -> None:
        name = path.decode("utf-8", "surrogateescape")
        line = json.dumps({"path": name, **what}) + "\n"
        self._size += len(line)
        self._told += not _OF_FOLDERS.isdisjoint(what)
        self._limits.check_beside(self._size, self._told)
        self._file.write(line)


def read(file: Iterable[str]) -> dict[bytes, Beside]:
    """All that the lines of such a file say, by path. Raises ValueError where it is damaged.

    That may take a gigabyte of memory: ``folders`` takes much less.
    """
    return _by_path([json.loads(line) for line in file])


def folders(file: IO[str], limits: Limits) -> dict[bytes, Beside]:
    """What such a file says of folders: which are opaque or implied. It is read line by line.

    Raises ValueError where it is damaged, or says more than ``limits`` allow.
    """
    lines: list[dict[str, Any]] = []
    size = 0
    while line := file.readline(_LONGEST_LINE):
        size += len(line)
        # What is told of others is not kept: of a layer that may be millions of lines.
        if any(f'"{key}": ' in line for key in _OF_FOLDERS):
            one = json.loads(line)
            if not _OF_FOLDERS.isdisjoint(one):
                lines.append({key: one[key] for key in ("path", *(_OF_FOLDERS & one.keys()))})
        if size > limits.beside or len(lines) > limits.told:
            raise ValueError("a file beside a layer is larger than any that was written")
    return _by_path(lines)


def _by_path(lines: list[dict[str, Any]]) -> dict[bytes, Beside]:
    found: dict[bytes, Beside] = {}
    for line in reversed(list(_alive(lines))):
        path = line["path"].encode("utf-8", "surrogateescape")
        _take(found.setdefault(path, Beside()), line)
    return found


def _alive(lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """From the last to the first: those that nothing later says are gone."""
    gone: set[str] = set()
    for line in reversed(lines):
        if line.get("gone"):
            gone.add(line["path"])
        elif not gone or not any(above in gone for above in _above(line["path"])):
            yield line


def _above(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _take(one: Beside, line: dict[str, Any]) -> None:
    match line:
        case {"owner": [user, group]}:
            one.owner = (user, group)
        case {"device": [kind, major, minor]}:
            one.device = (kind, major, minor)
        case {"xattrs": values}:
            one.xattrs = {name: base64.b64decode(value) for name, value in values.items()}
        case {"opaque": opaque}:
            one.opaque = opaque
        case {"implied": implied}:
            one.implied = implied
