"""What of a folder of this machine goes into a build: all that ``.dockerignore`` leaves in."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from neuro.client.storage.local import Below, LocalFile, LocalFolder, Odd, look, top_of
from neuro.client.storage.transfer import local_fault
from neuro.dockerfile.ignore_files import names_of_ignore_file
from neuro.domain.errors import InvalidInput

if TYPE_CHECKING:
    from neuro.dockerfile.ignore import IgnoreMatcher, Pattern, Verdict

Item = LocalFile | LocalFolder | Odd


def ignored_in(top: Path, dockerfile: str) -> tuple[tuple[Pattern, ...], str | None]:
    """The patterns for a build with this Dockerfile, and the path of the file that has them.

    ``dockerfile`` is a path in the context; an absolute one where it lies outside of it, and then
    so may be the path that is returned. Raises DockerfileError for patterns that make no sense,
    StorageFault for a file that cannot be read.
    """
    for name in names_of_ignore_file(dockerfile):
        try:
            text = (top / name).read_text(encoding="utf-8", errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise local_fault(error, top / name) from None
        from neuro.dockerfile.ignore import read_patterns  # most contexts have no such file

        return read_patterns(text, name), name
    return (), None


def context_items(
    top: Path, patterns: tuple[Pattern, ...], always: Collection[str]
) -> Iterator[Item]:
    """The files and folders of a context, folders before what is in them.

    ``always`` are paths that the builder needs whatever the patterns say. Links are followed;
    one that leads nowhere, or out of the context, is left out: a folder that somebody else made
    must not bring a person's own files into an image. Raises StorageFault for a top that is no
    folder, InvalidInput where a link among ``always`` leads out.
    """
    resolved = os.path.realpath(top)
    if not patterns:
        yield from _Walk(None, frozenset(always), resolved).folder(top_of(top), None, ())
        return
    from neuro.dockerfile.ignore import TOP, IgnoreMatcher

    walk = _Walk(IgnoreMatcher(patterns), frozenset(always), resolved)
    yield from walk.folder(top_of(top), TOP, ())


class _Walk:
    """Without a matcher, and so without verdicts, nothing is left out but links that lead out."""

    def __init__(self, matcher: IgnoreMatcher | None, always: frozenset[str], top: str) -> None:
        self._top = top
        self._matcher = matcher
        self._always = always
        self._around = {f"{path}/" for path in always}

    def folder(
        self, place: Below, verdict: Verdict | None, above: tuple[tuple[int, int], ...]
    ) -> Iterator[Item]:
        try:
            with os.scandir(place.path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Odd(place.path, place.relative, os.strerror(error.errno or 0))
            return
        above = (*above, place.identity)
        for entry in entries:
            path = f"{place.relative}/{entry.name}" if place.relative else entry.name
            of_entry = self._verdict(path, verdict)
            found = look(entry, path, above)
            if not isinstance(found, Odd) and entry.is_symlink() and self._leads_out(entry):
                found = self._outside(entry, path)
            if isinstance(found, Below):
                yield from self._below(found, of_entry, above)
            elif of_entry is not None and of_entry.ignored and path not in self._always:
                continue
            elif isinstance(found, Odd) and entry.is_symlink():
                yield replace(found, special=True)
            else:
                yield found

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        return os.path.commonpath((self._top, os.path.realpath(entry.path))) != self._top

    def _outside(self, entry: os.DirEntry[str], path: str) -> Odd:
        if path in self._always:
            raise InvalidInput(
                f"'{path}' of the context is a link that leads out of it, and the build needs the"
                " file: put the file itself there."
            )
        return Odd(entry.path, path, "the link leads out of the context")

    def _below(
        self, place: Below, verdict: Verdict | None, above: tuple[tuple[int, int], ...]
    ) -> Iterator[Item]:
        if self._matcher is None or verdict is None or not verdict.ignored:
            yield LocalFolder(place.relative)
            yield from self.folder(place, verdict, above)
            return
        inside = f"{place.relative}/"
        is_needed = any(path.startswith(inside) for path in self._around)
        if not is_needed and not self._matcher.may_keep_below(place.relative, verdict):
            return
        is_first = True
        for item in self.folder(place, verdict, above):
            if is_first:
                yield LocalFolder(place.relative)  # As something in it is part of the context.
                is_first = False
            yield item

    def _verdict(self, path: str, folder: Verdict | None) -> Verdict | None:
        if self._matcher is None or folder is None:
            return None
        return self._matcher.verdict(path, folder)
