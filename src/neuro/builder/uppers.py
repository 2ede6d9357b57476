"""The one folder of changes that a step leaves, where its root is of several overlays.

A root on the machine's userland has an overlay for each of its folders, and each wants a writable
layer of its own: ``work/upper-N``, for the folder that the Nth entry of ``work/parts`` says.
Root is number 0. After the step they are put together in ``upper``, as one layer of an image has
them.
"""

from __future__ import annotations

import os

PARTS = "parts"
_MARKS = 4  # numbers that ``mark`` finds


def part(number: int) -> str:
    """The name of the writable layer of an overlay."""
    return f"upper-{number}"


def note(work: str, paths: list[str], marks: list[list[int]]) -> None:
    """Leave word of which overlays there are, and what their folders were like before."""
    with open(f"{work}/{PARTS}", "wb") as file:
        for path, before in zip(paths, marks, strict=True):
            file.write(b"%s %s\0" % (" ".join(map(str, before)).encode(), os.fsencode(path)))


def mark(path: str) -> list[int]:
    """What of a folder shows whether it was changed."""
    found = os.stat(path, follow_symlinks=False)
    return [found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns]


def gather(upper: str, work: str) -> None:
    """Put together what a step on the machine's userland has left. Raises OSError."""
    try:
        with open(f"{work}/{PARTS}", "rb") as file:
            noted = file.read().split(b"\0")[:-1]
    except FileNotFoundError:
        return
    for number, entry in enumerate(noted):
        *before, path = os.fsdecode(entry).split(" ", _MARKS)
        source = f"{work}/{part(number)}"
        if number and not os.listdir(source) and mark(source) == list(map(int, before)):
            continue  # nobody changed anything there
        target = upper + path.rstrip("/")
        if number == 0:
            for name in os.listdir(source):
                os.rename(f"{source}/{name}", f"{target}/{name}")
            continue
        _make_above(upper, path)
        os.rename(source, target)


def _make_above(upper: str, path: str) -> None:
    """Make the folders above a part's, which every image has as they are here."""
    place = upper
    for name in path.strip("/").split("/")[:-1]:
        place += f"/{name}"
        if not os.path.isdir(place):
            os.mkdir(place, 0o755)
