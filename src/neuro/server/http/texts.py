"""The one place that looks at every text of a request, by the types that the request decodes to.

A type that cannot be looked into (``Any``, raw JSON) is refused when the route is declared, so no
route can forget the check.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.texts import KIND, check_text

Check = Callable[[Any, str], None]

# JSON holds a control character as an escape, or (DEL and those of C1) as itself. A body without
# any of these, which is nearly every one, needs no second look: a million edges cost nothing.
_SUSPECT = re.compile(rb"\\u00[0189]|\\u007[fF]|\\[bfnrt]|\x7f|\xc2[\x80-\x9f]")
_PLAIN = (bytes, bool, int, float, datetime, timedelta, type(None))


def needs_check(raw: bytes | bytearray) -> bool:
    """Whether a JSON body may decode to a text with a control character."""
    return _SUSPECT.search(raw) is not None


def text_check(kind: Any) -> Callable[[Any], None]:
    """A function that raises InvalidInput for a value of ``kind`` with a character out of place.

    Raises TypeError for a type that it cannot look into.
    """
    check = _check_of(kind, {})

    def look(value: Any) -> None:
        if check is not None:
            check(value, "")

    return look


def _check_of(kind: Any, known: dict[Any, Check | None]) -> Check | None:
    """What looks at values of a type; None where they hold no text."""
    if kind is str:
        return _Text("line")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        for note in arguments[1:]:
            if isinstance(note, msgspec.Meta) and note.extra and KIND in note.extra:
                return _Text(note.extra[KIND])
        return _check_of(arguments[0], known)
    if origin in (Union, types.UnionType):
        return _union([_check_of(each, known) for each in arguments], arguments)
    if origin in (list, set, frozenset) or (origin is tuple and arguments[1:] == (...,)):
        return _items(_check_of(arguments[0], known))
    if origin is dict:
        return _pairs(_check_of(arguments[0], known), _check_of(arguments[1], known))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(kind, known)
    if isinstance(kind, type) and issubclass(kind, (*_PLAIN, Enum)):
        return None
    raise TypeError(f"A request cannot hold {kind!r}: its texts would not be looked at.")


class _Text:
    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, text: Any, field: str) -> None:
        if not isinstance(text, str):
            return
        try:
            check_text(text, f"'{field}'" if field else "The text", self._kind)
        except InvalidInput as error:
            error.field = field or None
            raise


def _union(checks: list[Check | None], members: Iterable[Any]) -> Check | None:
    present = [check for check in checks if check is not None]
    if len(present) > 1:
        # Which of the members a value is, nothing here could tell.
        raise TypeError(f"A request cannot hold one of several texts: {list(members)!r}.")
    if not present:
        return None
    check = present[0]

    def look(value: Any, field: str) -> None:
        if value is not None:
            check(value, field)

    return look


def _items(check: Check | None) -> Check | None:
    if check is None:
        return None

    def look(values: Any, field: str) -> None:
        for index, value in enumerate(values):
            check(value, f"{field}[{index}]")

    return look


def _pairs(of_key: Check | None, of_value: Check | None) -> Check | None:
    if of_key is None and of_value is None:
        return None

    def look(values: Any, field: str) -> None:
        for key, value in values.items():
            if of_key is not None:
                of_key(key, f"a key of {field}" if field else "a key")
            if of_value is not None:
                of_value(value, f"{field}.{key}" if field else str(key))

    return look


def _struct(kind: type[msgspec.Struct], known: dict[Any, Check | None]) -> Check | None:
    if kind in known:
        # A type within itself: its check is not there yet, and is looked up when it is used.
        return lambda value, field: _use(known[kind], value, field)
    known[kind] = None
    hints = get_type_hints(kind, include_extras=True)
    checks: list[tuple[str, str, Check]] = []
    for field in msgspec.structs.fields(kind):
        check = _check_of(hints[field.name], known)
        if check is not None:
            checks.append((field.name, field.encode_name, check))

    def look(value: Any, where: str) -> None:
        for name, shown, check in checks:
            check(getattr(value, name), f"{where}.{shown}" if where else shown)

    known[kind] = look if checks else None
    return known[kind]


def _use(check: Check | None, value: Any, field: str) -> None:
    if check is not None:
        check(value, field)
