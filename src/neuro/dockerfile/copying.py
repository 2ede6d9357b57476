"""Which files a COPY takes, and where each goes: decided from a list of what there is.

A folder's content is copied, not the folder itself; a file goes into a destination that is a
folder. ``--exclude`` counts from the folder that is copied, ``--parents`` keeps the folders below
its pivot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from neuro.dockerfile.globs import has_wildcards, matches
from neuro.dockerfile.ignore import TOP, IgnoreMatcher, Verdict, single_patterns
from neuro.dockerfile.paths import join
from neuro.dockerfile.steps import Files


class Entry(NamedTuple):
    """Something that is there: its path from the top, without a slash before it."""

    path: str
    is_folder: bool


class Copied(NamedTuple):
    """One thing that is copied. Folders that only lead to it are made as well."""

    path: str
    target: str
    is_folder: bool


class MissingSource(LookupError):
    """A source without wild cards that is not there."""


def copied(
    files: Files,
    excludes: Iterable[str],
    destination: str,
    entries: Iterable[Entry],
    is_folder: Callable[[str], bool],
) -> Iterator[Copied]:
    """What is copied, in the order of ``entries``: each folder stands before what is in it.

    ``is_folder`` says of an absolute path whether it is a folder below the new layer.
    Raises MissingSource.
    """
    pattern = files.source.strip("/")
    sources = _Sources(pattern)
    into_folder = destination.endswith("/") or is_folder(destination)
    included = IgnoreMatcher(single_patterns([files.include])) if files.include else None
    excluded = IgnoreMatcher(single_patterns(excludes))
    verdicts: dict[str, tuple[Verdict, Verdict]] = {}
    required = files.required.strip("/") or _plain_part(pattern)
    if not pattern:
        sources.found("")
        yield Copied("", join("/", destination), True)
    for entry in entries:
        if entry.path == required:
            required = ""
        source = sources.of(entry)
        if source is None:
            continue
        inside = entry.path[len(source) :].lstrip("/")
        if not inside:
            yield _top(entry, destination, into_folder)
            into_folder |= entry.is_folder
            continue
        above = verdicts.get(entry.path.rpartition("/")[0], (TOP, TOP))
        takes = included.verdict(inside, above[0]) if included else Verdict(True)
        drops = excluded.verdict(inside, above[1])
        if entry.is_folder:
            verdicts[entry.path] = takes, drops
        if takes.ignored and not drops.ignored:
            yield Copied(entry.path, join("/", destination, inside), entry.is_folder)
    if required:
        raise MissingSource(required)


def _plain_part(pattern: str) -> str:
    """The folder above the first name with wild cards, which has to be there."""
    plain: list[str] = []
    for name in pattern.split("/"):
        if has_wildcards(name):
            break
        plain.append(name)
    return "/".join(plain)


def _top(entry: Entry, destination: str, into_folder: bool) -> Copied:
    if into_folder and not entry.is_folder:
        name = entry.path.rpartition("/")[2]
        return Copied(entry.path, join("/", destination, name), False)
    return Copied(entry.path, join("/", destination), entry.is_folder)


class _Sources:
    """The paths that a pattern stands for, found one after the other."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._is_wild = has_wildcards(pattern)
        self._found: set[str] = set()

    def found(self, path: str) -> str:
        self._found.add(path)
        return path

    def of(self, entry: Entry) -> str | None:
        """The source that an entry is, or is in."""
        if "" in self._found:
            return ""
        end = entry.path.find("/")
        while end >= 0:
            if entry.path[:end] in self._found:
                return entry.path[:end]
            end = entry.path.find("/", end + 1)
        is_source = (
            matches(self._pattern, entry.path) if self._is_wild else entry.path == self._pattern
        )
        return self.found(entry.path) if is_source else None
