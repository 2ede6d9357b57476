"""Wildcards in storage paths, expanded by listing (the server knows no patterns).

``*``, ``?`` and ``[…]`` match within a name, ``**`` any number of folders. Names that begin with a
dot are matched only by patterns that do.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from fnmatch import translate

import msgspec

from neuro.domain.errors import InvalidInput, NotFound, StorageFault
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import (
    ResourceURI,
    check_path_segments,
    decode_path,
    parse_uri,
    split_short,
)

List = Callable[[ResourceURI], AsyncIterator[FileStatus]]

_MAGIC = re.compile(r"[*?\[]")


class Pattern(msgspec.Struct, frozen=True):
    """A URI whose path may have wildcards: the folder to begin in, and what must match below."""

    start: ResourceURI
    parts: tuple[str, ...]


def has_wildcards(text: str) -> bool:
    """Whether a URI as it was typed has wildcards in it."""
    return _MAGIC.search(text) is not None


def parse_pattern(text: str, *, cluster: str, user: str) -> Pattern:
    """Cut ``storage:data/*.txt`` into the plain folder in front and the pattern behind.

    Raises InvalidInput for another scheme, ``..``, ``#``, and wildcards in the cluster's name.
    """
    host, path = split_short(text, "storage", cluster=cluster, user=user)
    if "#" in path:
        raise InvalidInput(f"'{text}' has '#': write it as %23.")
    if has_wildcards(host):
        raise InvalidInput(f"'{text}': a cluster's name cannot have wildcards.")
    raw = check_path_segments(path.split("/"), text)
    plain = next((i for i, part in enumerate(raw) if has_wildcards(part)), len(raw))
    start = parse_uri("/".join((f"storage://{host}", *raw[:plain])))
    return Pattern(start, tuple(_requote(part, text) for part in raw[plain:]))


def _requote(part: str, text: str) -> str:
    # What was quoted means itself, and ``fnmatch`` quotes in brackets.
    pieces = re.split(r"((?:%[0-9A-Fa-f]{2})+)", part)
    return "".join(
        re.sub(r"([*?\[])", r"[\1]", decode_path(piece, text)) if index % 2 else piece
        for index, piece in enumerate(pieces)
    )


class Match(msgspec.Struct, frozen=True):
    """What matches, and its entry in the listing of its folder; None where none was listed."""

    uri: ResourceURI
    entry: FileStatus | None = None


async def expand(pattern: Pattern, list_folder: List) -> AsyncGenerator[Match, None]:
    """Everything that matches, by name within each folder. Yields the start without wildcards."""
    start = Match(pattern.start)
    if not pattern.parts:
        yield start
        return
    async for found in _below(start, pattern.parts, list_folder):
        yield found


async def _below(
    folder: Match, parts: tuple[str, ...], list_folder: List
) -> AsyncGenerator[Match, None]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            async for found in _below(folder, rest, list_folder):
                yield found
        else:
            yield folder
    expression = re.compile(translate("*" if part == "**" else part))
    for entry in await _sorted(folder.uri, list_folder):
        if entry.path.startswith(".") and not part.startswith("."):
            continue
        if expression.match(entry.path) is None:
            continue
        child = Match(folder.uri.child(entry.path), entry)
        is_folder = entry.type is not FileType.FILE
        if part == "**":
            if entry.type is FileType.DIRECTORY:
                async for found in _below(child, parts, list_folder):
                    yield found
            elif not rest:
                yield child
        elif not rest:
            yield child
        elif is_folder:
            async for found in _below(child, rest, list_folder):
                yield found


async def _sorted(folder: ResourceURI, list_folder: List) -> list[FileStatus]:
    try:
        entries = [entry async for entry in list_folder(folder)]
    except (NotFound, StorageFault):
        return []  # A file, or a link that leads nowhere: nothing is below it.
    return sorted(entries, key=lambda entry: entry.path)
