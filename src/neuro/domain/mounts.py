"""Where volumes are mounted in a job: each at a place of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def place_of(path: str) -> str:
    """An absolute path in the one form that it has without '.', '//' and a slash at its end.

    >>> place_of("/data/./raw//")
    '/data/raw'
    """
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def mount_of(reference: str) -> tuple[str, str]:
    """(what, path) of a volume as people write it, ``URI:/PATH[:ro|:rw]``; no path where none is.

    >>> mount_of("storage:data:/data:ro")
    ('storage:data', '/data')
    >>> mount_of("storage:data")
    ('storage:data', '')
    """
    what, _, path = reference.removesuffix(":ro").removesuffix(":rw").rpartition(":")
    return (what, path) if what and path.startswith("/") else (reference, "")


def mounted_twice(mounts: Iterable[tuple[str, str]]) -> Iterator[tuple[int, str]]:
    """(index, what is wrong) of each (what, path) whose place an earlier one has."""
    first: dict[str, str] = {}
    for index, (what, path) in enumerate(mounts):
        place = place_of(path)
        if not path:
            continue
        if place in first:
            yield index, f"Two volumes are mounted at '{path}': {first[place]} and {what}"
        first.setdefault(place, what)
