"""Mistakes in ``server.toml`` in a person's words: the key, what it may be, the line."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from neuro.domain.errors import InvalidInput

Key = tuple[str | int, ...]  # names, and numbers of tables in a list, from 0

_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]\]?")
_ASSIGNED = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*=")
_WORDS: Mapping[object, str] = {
    str: "a text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def check_shape(kind: type[msgspec.Struct], content: Mapping[str, Any], at: Key = ()) -> None:
    """Raise Misplaced for the first key that there is not, or whose value is of another kind."""
    hints = get_type_hints(kind)
    for name, value in content.items():
        key = (*at, name)
        if name not in hints:
            raise Misplaced(key, _unknown(at, name, sorted(hints)))
        _check_value(hints[name], value, key)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in content:
            raise Misplaced(at, f"{spelled(at)} needs '{field.name}'")


def _check_value(hint: Any, value: Any, key: Key) -> None:
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        if get_origin(kind) is list:
            if not isinstance(value, list):
                raise Misplaced(
                    key, f"{spelled(key)} must be tables: begin each with [[{key[-1]}]]"
                )
            for number, each in enumerate(value):
                _check_value(get_args(kind)[0], each, (*key, number))
            return
        if get_origin(kind) is dict:
            if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
                raise Misplaced(
                    key, f"{spelled(key)} must be sections: begin each with [{key[-1]}.NAME]"
                )
            return
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            if not isinstance(value, dict):
                raise Misplaced(key, f"{spelled(key)} must be a section: begin it with [{key[-1]}]")
            check_shape(kind, value, key)
            return
    if not any(_is(value, kind) for kind in kinds):
        raise Misplaced(key, f"{spelled(key)} is {value!r}: it must be {_meant(kinds)}")


def _is(value: object, kind: object) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_is(one, get_args(kind)[0]) for one in value)
    return (kind is float and isinstance(value, int | float)) or type(value) is kind


def _meant(kinds: Sequence[object]) -> str:
    if int in kinds and str in kinds:
        return 'a size such as "2G", or bytes'
    words = [_WORDS[kind] for kind in kinds if kind in _WORDS]
    for kind in kinds:
        if get_origin(kind) is Literal:
            words += [f'"{one}"' for one in get_args(kind)]
        elif get_origin(kind) is tuple:
            words.append('a list of texts, such as ["a", "b"]')
    return " or ".join(words)


def _unknown(at: Key, name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    where = f" in [{spelled(at)}]" if at else ""
    return f"there is no key '{name}'{where}: {hint}known are {', '.join(known)}"


class Misplaced(InvalidInput):
    """A mistake at a key."""

    def __init__(self, key: Key, message: str) -> None:
        super().__init__(message)
        self.key = key


@contextmanager
def placed(key: Key) -> Iterator[None]:
    """Around checks of what is at a key: mistakes get the place."""
    try:
        yield
    except Misplaced:
        raise
    except InvalidInput as error:
        raise Misplaced(key, error.message) from None


def spelled(key: Key) -> str:
    """A key as a person reads it; tables of a list are counted from 1.

    >>> spelled(("presets", 0, "cpu"))
    'presets[1].cpu'
    """
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text


def with_line(text: str, error: Exception) -> str:
    """The error, with the number of its line in ``text`` before it, where that is found."""
    line = line_of(text, error.key) if isinstance(error, Misplaced) else None
    said = str(error).rstrip(".")
    return f"line {line}: {said}" if line is not None else said


def line_of(text: str, key: Key) -> int | None:
    """The number of the line with a key, or of its section's header; None where none is found.

    >>> line_of("[capacity]\\ncpu = -3", ("capacity", "cpu"))
    2
    """
    section: Key = ()
    counts: dict[str, int] = {}
    of_section: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            section = tuple(header[2].split("."))
            if header[1] == "[[":
                counts[header[2]] = counts.get(header[2], -1) + 1
                section = (*section, counts[header[2]])
            if section and section == key[: len(section)]:
                of_section = number
            if section == key:
                return number
            continue
        assigned = _ASSIGNED.match(line)
        if assigned and (*section, assigned[1]) == key:
            return number
    return of_section
