"""How entries of a folder look in ``ls`` and ``tree``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from neuro.cli.output import Output
from neuro.cli.render.sizes import gnu_size
from neuro.domain.printable import display_width, printable
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import ResourceURI

SORTS = ("name", "size", "time")

_MARKS = {FileType.FILE: "-", FileType.DIRECTORY: "d", FileType.SYMLINK: "l"}
_COLORS = {FileType.DIRECTORY: "blue", FileType.SYMLINK: "cyan", FileType.UNKNOWN: "yellow"}


def is_shown(entry: FileStatus, everything: bool) -> bool:
    """Whether an entry is listed: names that begin with a dot only on demand."""
    return everything or not entry.path.startswith(".")


def ordered(entries: Sequence[FileStatus], sort: str) -> list[FileStatus]:
    """By name, or the largest or the newest first, as GNU's ``ls`` does."""
    by_name = sorted(entries, key=lambda entry: entry.path)
    if sort == "size":
        return sorted(by_name, key=lambda entry: -entry.length)
    if sort == "time":
        return sorted(by_name, key=lambda entry: -entry.modificationTime)
    return by_name


def size_text(count: int, human: bool) -> str:
    """Bytes, or the short form."""
    return gnu_size(count) if human else str(count)


def name_text(entry: FileStatus, out: Output) -> str:
    """A name that cannot play tricks with the terminal, in the colour of its kind."""
    name, color = printable(entry.path), _COLORS.get(entry.type)
    return out.style(name, fg=color) if color else name


def as_told(entry: FileStatus, uri: ResourceURI) -> dict[str, object]:
    """An entry as JSON for programs: ``size`` in bytes, ``path`` in its cluster."""
    return {
        "name": uri.segments[-1] if uri.segments else "",
        "path": uri.path,
        "type": entry.type.value.lower(),
        "size": entry.length,
        "modified": datetime.fromtimestamp(entry.modificationTime, UTC),
        "permission": entry.permission.value,
        "target": entry.target,
    }


def long_lines(entries: Sequence[FileStatus], human: bool, out: Output) -> list[str]:
    """``-m  6  2026-11-21 08:33:11  a.txt``: kind and right, size, local time, name."""
    sizes = [size_text(entry.length, human) for entry in entries]
    width = max(map(len, sizes), default=0)
    lines = []
    for entry, size in zip(entries, sizes, strict=True):
        mark = _MARKS.get(entry.type, "?") + entry.permission.value[0]
        moment = datetime.fromtimestamp(entry.modificationTime).astimezone()
        arrow = f" -> {printable(entry.target)}" if entry.target is not None else ""
        time = moment.strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{mark}  {size:>{width}}  {time}  {name_text(entry, out)}{arrow}")
    return lines


def in_columns(entries: Sequence[FileStatus], width: int | None, out: Output) -> list[str]:
    """Names down the columns of a terminal; one a line where there is none."""
    names = [printable(entry.path) for entry in entries]
    if width is None or not names:
        return [name_text(entry, out) for entry in entries]
    lengths = [display_width(name) for name in names]
    rows = _rows_that_fit(lengths, width)
    columns = [
        list(range(start, min(start + rows, len(names)))) for start in range(0, len(names), rows)
    ]
    widths = [max(lengths[i] for i in column) for column in columns]
    lines = []
    for row in range(rows):
        cells = [
            (column[row], size)
            for column, size in zip(columns, widths, strict=True)
            if row < len(column)
        ]
        padded = [name_text(entries[i], out) + " " * (size - lengths[i]) for i, size in cells]
        lines.append("  ".join(padded).rstrip())
    return lines


def _rows_that_fit(lengths: Sequence[int], width: int) -> int:
    for rows in range(1, len(lengths)):
        columns = [lengths[start : start + rows] for start in range(0, len(lengths), rows)]
        if sum(max(column) + 2 for column in columns) - 2 <= width:
            return rows
    return len(lengths)
