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


class Recorder:
    """Writes such a file, one line of JSON for each thing that is to be known."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._written = False

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
        if self._written:
            self._write(path, gone=True)

    def told(self, path: bytes) -> None:
        """The layer has an entry for this folder, which may have been made for what is in it."""
        if self._written:
            self._write(path, implied=False)

    def _write(self, path: bytes, **what: object) -> None:
        self._written = True
        name = path.decode("utf-8", "surrogateescape")
        self._file.write(json.dumps({"path": name, **what}) + "\n")


def read(file: Iterable[str]) -> dict[bytes, Beside]:
    """All that the lines of such a file say, by path. Raises ValueError where it is damaged."""
    lines = [json.loads(line) for line in file]
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
