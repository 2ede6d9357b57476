"""The functions that expressions may call: how many arguments each takes, and the pure ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuro.flow.expressions.text import MAX_SIZE, fmt, json_ready, to_text
from neuro.flow.expressions.values import kind_of, ordered

if TYPE_CHECKING:
    from neuro.flow.expressions.evaluator import ExpressionScope

MAX_ITEMS = 500_000

# Fewest and most arguments of every function of the language; None is any number.
SIGNATURES: Mapping[str, tuple[int, int | None]] = {
    "len": (1, 1),
    "int": (1, 1),
    "str": (1, 1),
    "range": (1, 3),
    "keys": (1, 1),
    "values": (1, 1),
    "fmt": (1, None),
    "lower": (1, 1),
    "upper": (1, 1),
    "replace": (3, 3),
    "join": (2, 3),
    "to_json": (1, 1),
    "from_json": (1, 1),
    "nothing": (0, 0),
    "hash_files": (0, None),
    "hash_files_relative": (1, None),
    "upload": (1, 1),
    "parse_volume": (1, 1),
    "success": (0, None),
    "failure": (0, None),
    "always": (0, 0),
    "inspect_job": (1, 2),
}


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language. `call` gets the scope it is called in and its arguments."""

    name: str
    minimum: int
    maximum: int | None
    call: Callable[[ExpressionScope, Sequence[object]], object]
    doc: str


def _wrong(function: str, wanted: str, value: object) -> TypeError:
    return TypeError(f"{function}() takes {wanted}, not {kind_of(value)}")


def _text(function: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(function, "a string", value)
    return value


def _mapping(function: str, value: object) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise _wrong(function, "a mapping", value)
    return value


def _len(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    value = arguments[0]
    if not isinstance(value, str | list | tuple | set | frozenset | Mapping):
        raise _wrong("len", "a string, a list, a mapping or a set", value)
    return len(value)


def _int(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    value = arguments[0]
    if isinstance(value, str):
        scope.budget.spend(len(value))
        # Python's own limit on digits is much the same, and its message shows all of them.
        if len(value.strip()) > 4000:
            raise ValueError("int() takes at most 4000 digits")
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"{value[:60]!r} is not an integer") from None
    if isinstance(value, int | float):
        try:
            return int(value)
        except (ValueError, OverflowError):
            raise ValueError(f"{value} is not an integer") from None
    raise _wrong("int", "a number or a string", value)


def _str(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return to_text(arguments[0], scope.budget)


def _range(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    numbers: list[int] = []
    for value in arguments:
        if not isinstance(value, int):
            raise _wrong("range", "integers", value)
        numbers.append(value)
    if len(numbers) == 3 and numbers[2] == 0:
        raise ValueError("the step of range() cannot be 0")
    result = range(*numbers)
    # len() of a range cannot count beyond a machine word.
    if result and abs(result[-1] - result[0]) // abs(result.step) >= MAX_ITEMS:
        raise ValueError(f"range() gives at most {MAX_ITEMS} items")
    scope.budget.spend(16 * len(result))
    return list(result)


def _keys(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return list(_mapping("keys", arguments[0]))


def _values(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return list(_mapping("values", arguments[0]).values())


def _fmt(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return fmt(_text("fmt", arguments[0]), arguments[1:], scope.budget)


def _lower(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return _text("lower", arguments[0]).lower()


def _upper(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return _text("upper", arguments[0]).upper()


def _replace(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    value, old, new = (_text("replace", argument) for argument in arguments)
    scope.budget.spend(len(value))
    scope.budget.spend(max(len(value) + value.count(old) * (len(new) - len(old)), 0))
    return value.replace(old, new)


def _join(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    separator = _text("join", arguments[0])
    source = arguments[1]
    if isinstance(source, set | frozenset):
        source = ordered(source)
    elif isinstance(source, Mapping):
        source = list(source)
    if not isinstance(source, str | list | tuple):
        raise TypeError(f"join() takes a list to join, not {kind_of(source)}")
    convert = bool(arguments[2]) if len(arguments) > 2 else False
    texts: list[str] = []
    for item in source:
        if not convert and not isinstance(item, str):
            raise TypeError(
                f"join() takes a list of strings, and this one has {kind_of(item)};"
                " with True as a third argument it makes strings of the items"
            )
        texts.append(to_text(item, scope.budget))
        scope.budget.spend(len(texts[-1]) + len(separator))
    return separator.join(texts)


def _to_json(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    import json

    scope.budget.measure(arguments[0])
    return json.dumps(json_ready(arguments[0]))


def _from_json(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    import json

    text = _text("from_json", arguments[0])
    # A value takes up to sixteen times the memory of its JSON.
    scope.budget.spend(min(16 * len(text), MAX_SIZE + 1))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"from_json() takes JSON, and this string is not: {error.msg}"
            f" at line {error.lineno}, column {error.colno} of it"
        ) from None


def _nothing(scope: ExpressionScope, arguments: Sequence[object]) -> object:
    return None


def function(
    name: str, call: Callable[[ExpressionScope, Sequence[object]], object], doc: str
) -> Function:
    """A function with the arguments that the language's table gives to its name."""
    fewest, most = SIGNATURES[name]
    return Function(name, fewest, most, call, doc)


# Functions that need nothing but their arguments.
STANDARD: Mapping[str, Function] = {
    made.name: made
    for made in (
        function("len", _len, "How many characters, items or keys there are."),
        function("int", _int, "The integer that a string or a number stands for."),
        function("str", _str, "A value as a string."),
        function("range", _range, "A list of integers: to a stop, from a start, by a step."),
        function("keys", _keys, "The keys of a mapping, as a list."),
        function("values", _values, "The values of a mapping, as a list."),
        function("fmt", _fmt, "A string with '{}' filled in by the other arguments."),
        function("lower", _lower, "A string in small letters."),
        function("upper", _upper, "A string in capital letters."),
        function("replace", _replace, "A string with each occurrence of another one replaced."),
        function("join", _join, "The strings of a list with a separator between them."),
        function("to_json", _to_json, "A value as a JSON string."),
        function("from_json", _from_json, "The value that a JSON string stands for."),
        function("nothing", _nothing, "None."),
    )
}
