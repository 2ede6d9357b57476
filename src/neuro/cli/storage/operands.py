"""SOURCES and DESTINATION, by the rules of GNU's ``cp`` and ``mv``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import click

from neuro.cli.context import Context
from neuro.cli.storage.items import Items, collect
from neuro.client.storage.globs import has_wildcards
from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.uris import ResourceURI, full_text

SCHEME, FILE_SCHEME = "storage", "file"
STDIN, STDOUT = "/dev/stdin", "/dev/stdout"
_NO_MATCH = NotFound("nothing matches. With --no-glob, * ? and [ ] are parts of a name.")


class Local(NamedTuple):
    """A path of this machine, as it was typed."""

    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The last part; "" for ``.``, ``..`` and ``/``, which have no name to take along."""
        name = Path(self.path).name
        return "" if name == ".." else name

    def child(self, name: str) -> Local:
        return Local(str(Path(self.path, name))) if name else self


class Remote(NamedTuple):
    """A place in the storage."""

    uri: ResourceURI

    def __str__(self) -> str:
        return str(self.uri)

    @property
    def name(self) -> str:
        return self.uri.segments[-1] if len(self.uri.segments) > 1 else ""

    def child(self, name: str) -> Remote:
        return Remote(self.uri.child(name)) if name else self


Place = Local | Remote


class Operands(NamedTuple):
    """What a command line asks for. ``into`` None: it depends on what is there."""

    sources: tuple[str, ...]
    destination: str
    into: bool | None


def parse_operands(
    paths: Sequence[str], target_directory: str | None, no_target_directory: bool
) -> Operands:
    """Sort out the arguments. Raises click's UsageError (exit code 2)."""
    if target_directory is not None:
        if no_target_directory:
            raise click.UsageError(
                "Cannot combine --target-directory (-t) and --no-target-directory (-T)"
            )
        if not paths:
            raise click.UsageError('Missing argument "SOURCES..."')
        return Operands(tuple(paths), target_directory, into=True)
    if not paths:
        raise click.UsageError('Missing argument "SOURCES..."')
    if len(paths) == 1:
        raise click.UsageError('Missing argument "DESTINATION"')
    if no_target_directory and len(paths) > 2:
        raise click.UsageError(f"Extra operand after '{paths[1]}'")
    *sources, destination = paths
    into = False if no_target_directory else True if len(sources) > 1 else None
    return Operands(tuple(sources), destination, into)


def with_streams(operands: Operands) -> Operands:
    """The operands with standard input and output in place of ``-``. Raises UsageError."""
    if operands.destination == "-" and len(operands.sources) > 1:
        raise click.UsageError("One file goes to standard output, not several.")
    return Operands(
        tuple(STDIN if source == "-" else source for source in operands.sources),
        STDOUT if operands.destination == "-" else operands.destination,
        operands.into if operands.destination != "-" else False,
    )


def parse_place(context: Context, text: str) -> Place:
    """A ``storage:`` URI, or a path of this machine (``file:`` in front of it or not)."""
    if text.startswith(f"{SCHEME}:"):
        return Remote(context.client.storage.uri(text))
    if text.startswith(f"{FILE_SCHEME}:"):
        quoted = os.fsencode(text.removeprefix(f"{FILE_SCHEME}:"))
        path = os.fsdecode(unquote_to_bytes(quoted))
        return Local(path.removeprefix("//") if path.startswith("///") else path)
    _check_scheme(text)
    return Local(text)


def _check_scheme(text: str) -> None:
    # "stroage:data" would be a file's name, and be made.
    scheme, colon, rest = text.partition(":")
    if not colon or os.path.lexists(text) or not scheme.isalpha():
        return
    from difflib import get_close_matches

    if near := get_close_matches(scheme.lower(), (SCHEME, FILE_SCHEME), 1, cutoff=0.7):
        raise InvalidInput(f"'{text}' is not a storage URI. Did you mean '{near[0]}:{rest}'?")


def expand(context: Context, texts: Sequence[str], items: Items, *, glob: bool) -> list[Place]:
    """The sources, with wildcards expanded in those that have a scheme (shells do the others)."""
    places: list[Place] = []
    for text in texts:
        if text.startswith(f"{SCHEME}:"):
            places += map(Remote, expand_uris(context, [text], items, glob=glob))
        elif glob and has_wildcards(text) and text.startswith(f"{FILE_SCHEME}:"):
            places += _local_matches(parse_place(context, text), text, items)
        else:
            places.append(parse_place(context, text))
    return places


def _local_matches(place: Place, text: str, items: Items) -> list[Local]:
    from glob import glob as local_glob

    names = sorted(local_glob(str(place), recursive=True))  # noqa: PTH207 - any path, "**" too
    if not names and os.path.lexists(str(place)):
        names = [str(place)]
    if not names:
        items.failed(f"access '{text}'", _NO_MATCH)
    return [Local(name) for name in names]


def expand_uris(
    context: Context, texts: Sequence[str], items: Items, *, glob: bool
) -> list[ResourceURI]:
    """Like ``expand``, for commands that know only the storage. Raises InvalidInput.

    As in a shell, a pattern that matches nothing stands for the name that it is.
    """
    storage = context.client.storage
    uris: list[ResourceURI] = []
    for text in texts:
        if not glob or not has_wildcards(text):
            uris.append(storage.uri(text))
            continue
        found = context.run(collect(storage.glob(text)))
        if not found and (named := _named(context, text)) is not None:
            found = [named]
        if not found:
            items.failed(f"access '{text}'", _NO_MATCH)
        uris += found
    return uris


def _named(context: Context, text: str) -> ResourceURI | None:
    storage = context.client.storage
    try:
        uri = storage.uri(text)
    except InvalidInput:  # A "?" as it is.
        return None
    return uri if context.run(storage.exists(uri)) else None


def is_folder(context: Context, place: Place) -> bool:
    """Whether there is a folder."""
    if isinstance(place, Local):
        return Path(place.path).is_dir()
    return context.run(context.client.storage.is_folder(place.uri))


def goes_into(context: Context, operands: Operands, destination: Place) -> bool:
    """Whether the sources go into the destination, or become it."""
    if operands.into is not None:
        return operands.into
    return operands.destination.endswith("/") or is_folder(context, destination)


def missing_folder(context: Context, uri: ResourceURI) -> NotFound | None:
    """That the folder above is not there, and how to make it; None where it is."""
    folder = ResourceURI(uri.scheme, uri.host, uri.segments[:-1])
    if context.run(context.client.storage.exists(folder)):
        return None
    argument = shlex.quote(full_text(folder))
    return NotFound(f"the folder {folder} does not exist: `neuro mkdir -p {argument}` makes it.")
