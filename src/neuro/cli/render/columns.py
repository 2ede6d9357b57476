"""The language of ``--format`` (docs/guide/configuration.md): which columns, in which order.

``id, name/status {image;max=30;align=right;PICTURE}``: columns are separated by spaces or commas,
a slash stacks values in one cell, braces carry properties and a title. Names of columns may be
abbreviated as long as they are clear.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from neuro.cli.failures import BAD_VALUE, Failure
from neuro.cli.render.table import Column

_SPEC = re.compile(r"\s*(?:\{(?P<braced>[^{}]*)\}|(?P<plain>[^\s,{}]+))\s*,?")
_ALIGN = ("left", "right", "center")


class Known(NamedTuple):
    """A column that there is, and how it looks unless the format says otherwise."""

    title: str
    max: int | None = None
    align: str = "left"
    shrinks: bool = True


class Shown(NamedTuple):
    """A column of the format: what its cells stack, and how it looks."""

    ids: tuple[str, ...]
    look: Column


def parse_columns(text: str, known: Mapping[str, Known]) -> tuple[Shown, ...]:
    """Read a format. Raises Failure (exit code 127) for what it does not understand."""
    shown, position = [], 0
    while position < len(text.rstrip()):
        match = _SPEC.match(text, position)
        if match is None:
            raise Failure(f"Invalid format: '{text[position:].strip()}'", BAD_VALUE)
        braced = match["braced"]
        words = [match["plain"]] if braced is None else braced.split(";")
        shown.append(_column([word.strip() for word in words], known))
        position = match.end()
    if not shown:
        raise Failure("Invalid format: it has no columns", BAD_VALUE)
    return tuple(shown)


def column_ids(text: str, known: Mapping[str, Known]) -> list[str]:
    """Read one word of a format: the full names of a column, or of stacked ones."""
    return [_find(word, known) for word in text.split("/")]


def _column(words: Sequence[str], known: Mapping[str, Known]) -> Shown:
    ids = column_ids(words[0], known)
    defaults = [known[name] for name in ids]
    limits = [default.max for default in defaults if default.max is not None]
    title, align = "/".join(default.title for default in defaults), defaults[0].align
    smallest, largest = 0, max(limits) if len(limits) == len(defaults) else None
    for number, word in enumerate(words[1:], start=2):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals and word and number == len(words):
            title = word
        elif key == "align" and value in _ALIGN:
            align = value
        elif key in ("min", "max", "width") and value.isdecimal():
            smallest = smallest if key == "max" else int(value)
            largest = largest if key == "min" else int(value)
        else:
            raise Failure(f"Invalid format: unknown property '{word}'", BAD_VALUE)
    shrinks = all(default.shrinks for default in defaults)
    return Shown(tuple(ids), Column(title, align, smallest, largest, shrinks))


def _find(word: str, known: Mapping[str, Known]) -> str:
    name = word.lower()
    if name in known:
        return name
    found = [column for column in known if column.startswith(name)] if name else []
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure(f"Ambiguous column '{word}': it could be {', '.join(found)}", BAD_VALUE)
    raise Failure(f"Unknown column '{word}'; known are {', '.join(known)}", BAD_VALUE)
