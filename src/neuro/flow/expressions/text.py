"""Values as strings, within a budget: str(), `%`, fmt() and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any

from neuro.flow.expressions.values import Record, fields_of, ordered, stored_fields_of

MAX_STEPS = 500_000
MAX_SIZE = 32_000_000
MAX_TEXT = 10_000_000
MAX_WIDTH = 10_000


class TooMuch(ValueError):
    """An expression that computes more than is allowed."""


class Budget:
    """The steps, and characters or items made, that one evaluation has left."""

    __slots__ = ("size", "steps")

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.size = MAX_SIZE

    def step(self) -> None:
        """Count one step."""
        self.steps -= 1
        if self.steps < 0:
            raise TooMuch("The expression takes too many steps to compute")

    def spend(self, size: int) -> None:
        """Count what is about to be made: a character is 1, an item of a list 16."""
        if size > MAX_TEXT:
            raise TooMuch("The value is too large")
        self.size -= size
        if self.size < 0:
            raise TooMuch("The expression computes too large values")

    def measure(self, value: object) -> int:
        """Count all that a value holds, shared parts as often as they stand in it."""
        if isinstance(value, str):
            self.spend(len(value) // 16 + 1)
            return len(value)
        total = 0
        stack = [value]
        while stack:
            item = stack.pop()
            total += len(item) + 8 if isinstance(item, str) else 8
            self.spend(8)
            if isinstance(item, str):
                self.spend(len(item))
            elif isinstance(item, Mapping):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                stack.extend(item)
        return total


def to_text(value: object, budget: Budget) -> str:
    """A value in a string: as str() makes it, statuses as plain strings, sets in order."""
    if type(value) is str:
        return value
    return str(presentable(value, budget))


def presentable(value: object, budget: Budget) -> object:
    """A value whose str() is what people expect to see."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Record):
        raise TypeError(
            f"a record is not a string: use one of its attributes ({', '.join(fields_of(value))})"
        )
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        budget.measure(value)
        return _inside(value)
    return value


def _inside(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Record):
        return presentable(value, Budget())
    if isinstance(value, Mapping):
        return {_inside(key): _inside(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_inside(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_inside(item) for item in value)
    if isinstance(value, set | frozenset):
        return _OrderedSet(ordered([_inside(item) for item in value]))
    return value


class _OrderedSet(list[object]):
    """Looks like a set whose members are always in the same order."""

    def __repr__(self) -> str:
        return "{" + ", ".join(map(repr, self)) + "}" if self else "set()"

    __str__ = __repr__


_PERCENT = re.compile(
    r"%(?:\((?P<key>[^()]*)\))?(?P<flags>[#0\- +]*)(?P<width>\*|[0-9]*)"
    r"(?:\.(?P<precision>\*|[0-9]*))?[hlL]?(?P<type>.)",
    re.DOTALL,
)


def percent(pattern: str, value: object, budget: Budget) -> str:
    """`pattern % value`, with bounded widths."""
    cost = len(pattern)
    count = 0
    for match in _PERCENT.finditer(pattern):
        for number in (match["width"], match["precision"]):
            if number == "*":
                raise ValueError("a width of '*' is not supported in '%' formats")
            cost += _width(number)
        count += match["type"] != "%"
    cost += count * (budget.measure(value) + 32)
    budget.spend(cost)
    if isinstance(value, Mapping):
        value = {key: presentable(item, budget) for key, item in value.items()}
    else:
        value = presentable(value, budget)
    return pattern % value


def _width(digits: str | None) -> int:
    if not digits:
        return 0
    if len(digits) > 5 or int(digits) > MAX_WIDTH:
        raise ValueError(f"a width in a format is at most {MAX_WIDTH}")
    return int(digits)


class _Fields:
    """The positional arguments of one fmt() call."""

    def __init__(self, arguments: Sequence[object], budget: Budget) -> None:
        self.arguments = arguments
        self.budget = budget
        self.following = 0
        self.numbered: bool | None = None

    def take(self, field: str) -> object:
        if field and not (field.isascii() and field.isdigit()):
            raise ValueError(
                f"fmt() has positional fields only: '{{}}' or '{{0}}', not '{{{field[:40]}}}'"
            )
        if self.numbered is not None and self.numbered != bool(field):
            raise ValueError("fmt() fields are either all numbered or all without numbers")
        self.numbered = bool(field)
        index = int(field) if field and len(field) < 6 else self.following if not field else 10**6
        self.following += 1
        if index >= len(self.arguments):
            raise ValueError(f"fmt() has no argument for field {'{' + field[:10] + '}'}")
        return self.arguments[index]

    def render(self, pattern: str, nested: bool) -> str:
        # Imported here: few expressions format.
        import string

        parts: list[str] = []
        for literal, field, spec, conversion in string.Formatter().parse(pattern):
            self.budget.step()
            parts.append(literal)
            if field is None:
                continue
            value = self.take(field)
            if not nested and spec and "{" in spec:
                raise ValueError("fmt() fields are nested too deeply")
            if spec and nested:
                spec = self.render(spec, nested=False)
            self.budget.measure(value)
            parts.append(_format(value, spec or "", conversion))
            self.budget.spend(len(parts[-1]))
        return "".join(parts)


def fmt(pattern: str, arguments: Sequence[object], budget: Budget) -> str:
    """`str.format` with positional fields only, and without ways into the arguments."""
    budget.spend(len(pattern))
    return _Fields(arguments, budget).render(pattern, nested=True)


def _format(value: object, spec: str, conversion: str | None) -> str:
    for digits in re.findall(r"[0-9]+", spec):
        _width(digits)
    if conversion not in (None, "", "s", "r", "a"):
        raise ValueError(f"'!{conversion}' is not a conversion of fmt()")
    shown = presentable(value, Budget())
    if conversion == "s":
        shown = str(shown)
    elif conversion == "r":
        shown = repr(shown)
    elif conversion == "a":
        shown = ascii(shown)
    if not isinstance(shown, str | int | float):
        if spec and not isinstance(shown, PurePath):
            raise ValueError("a format is for strings and numbers; put '!s' before the ':'")
        shown = str(shown)
    return format(shown, spec)


def json_ready(value: object) -> Any:
    """A value of plain lists, dicts and scalars, which JSON can hold."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return json_ready(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Record):
        return {name: json_ready(getattr(value, name)) for name in stored_fields_of(value)}
    if isinstance(value, Mapping):
        return {_json_key(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return _json_list(ordered(value))
    if isinstance(value, list | tuple):
        return _json_list(value)
    isoformat = getattr(value, "isoformat", None)
    if isoformat is not None:
        return str(value)
    raise TypeError("to_json() cannot write this value")


def _json_list(values: Iterable[object]) -> list[Any]:
    return [json_ready(value) for value in values]


def _json_key(key: object) -> Any:
    if isinstance(key, Enum):
        return key.value
    if isinstance(key, PurePath):
        return str(key)
    return key
