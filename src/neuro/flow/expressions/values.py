"""The kinds of values that expressions work with, and how they are called in messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from typing import ClassVar


class Record:
    """An object whose `FIELDS` can be read with a dot; nothing else of it can be reached."""

    __slots__ = ()
    FIELDS: ClassVar[Collection[str]] = frozenset()


class URI(str):
    """An address; `/` appends a path to it."""

    __slots__ = ()

    def __truediv__(self, other: object) -> URI:
        """`URI("storage:a") / "b"` is `storage:a/b`."""
        if not isinstance(other, str | PurePath):
            return NotImplemented
        tail = str(other).strip("/")
        separator = "" if self.endswith(("/", ":")) else "/"
        return URI(f"{self}{separator}{tail}")


def fields_of(record: Record) -> tuple[str, ...]:
    """A record's readable names, in a fixed order."""
    names = type(record).FIELDS
    return tuple(sorted(names)) if isinstance(names, set | frozenset) else tuple(names)


def stored_fields_of(record: Record) -> tuple[str, ...]:
    """A record's fields without those that are computed from others, in the order of its class."""
    readable = fields_of(record)
    if not is_dataclass(record):
        return readable
    return tuple(field.name for field in fields(record) if field.name in readable)


def kind_of(value: object) -> str:
    """The name of a value's type in a sentence."""
    match value:
        case None:
            return "nothing (None)"
        case bool():
            return "a truth value"
        case int():
            return "an integer"
        case float():
            return "a number"
        case URI():
            return "an address"
        case str():
            return "a string"
        case PurePath():
            return "a path"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a mapping"
        case set() | frozenset():
            return "a set"
        case Record():
            return "a record"
        case Enum():
            return kind_of(value.value)
    return "a value without a type of its own"


def ordered(values: Collection[object]) -> list[object]:
    """A set's members in an order that is the same each time."""
    try:
        return sorted(values)  # type: ignore[type-var]
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, str(value)))
