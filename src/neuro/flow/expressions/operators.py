"""What each operator does with two values, within the bounds of an evaluation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from neuro.flow.expressions.text import Budget, percent
from neuro.flow.expressions.values import URI

# Python refuses to write integers of more than 4300 digits.
MAX_BITS = 14_000
MAX_PATH = 65_536


class Unsupported(Exception):
    """An operator that does not work between two kinds of values."""


def _numbers(left: object, right: object) -> bool:
    return isinstance(left, int | float) and isinstance(right, int | float)


def bounded(value: object) -> object:
    """A value, unless it is a number that is too long to be written. Raises OverflowError."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise OverflowError
    return value


def size_of(value: object) -> int:
    """How much of the budget a value costs."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple | dict | set | frozenset):
        return 16 * len(value)
    return 1


def _compare(operation: Callable[[Any, Any], object]) -> Callable[..., object]:
    def compare(left: object, right: object, budget: Budget) -> object:
        # What both sides hold is counted first: shared parts make small lists long to compare.
        if not isinstance(left, int | float | None) and not isinstance(right, int | float | None):
            budget.measure(left)
            budget.measure(right)
        try:
            return operation(left, right)
        except TypeError:
            raise Unsupported from None

    return compare


def _add(left: Any, right: Any, budget: Budget) -> object:
    if _numbers(left, right):
        return bounded(left + right)
    both_texts = isinstance(left, str) and isinstance(right, str)
    if both_texts or (isinstance(left, list | tuple) and isinstance(right, list | tuple)):
        budget.spend(size_of(left) + size_of(right))
        return left + right if both_texts else [*left, *right]
    raise Unsupported


def _subtract(left: Any, right: Any, budget: Budget) -> object:
    if _numbers(left, right):
        return bounded(left - right)
    raise Unsupported


def _multiply(left: Any, right: Any, budget: Budget) -> object:
    if _numbers(left, right):
        return bounded(left * right)
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, str | list | tuple) and isinstance(right, int):
        budget.spend(size_of(left) * max(right, 0))
        return left * right
    raise Unsupported


def _divide(left: Any, right: Any, budget: Budget) -> object:
    if _numbers(left, right):
        return left / right
    if not isinstance(left, str | PurePath) or not isinstance(right, str | PurePath):
        raise Unsupported
    if len(str(left)) + len(str(right)) > MAX_PATH:
        raise ValueError("the path is too long")
    if not isinstance(left, PurePath | URI) and not isinstance(right, PurePath):
        raise Unsupported
    joined: object = operator.truediv(left, right)
    budget.spend(len(str(joined)))
    return joined


def _modulo(left: Any, right: Any, budget: Budget) -> object:
    if _numbers(left, right):
        return left % right
    if isinstance(left, str):
        return percent(left, right, budget)
    raise Unsupported


def _union(left: Any, right: Any, budget: Budget) -> object:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        budget.spend(16 * (len(left) + len(right)))
        return {**left, **right}
    if isinstance(left, int) and isinstance(right, int):
        return left | right
    if isinstance(left, set | frozenset) and isinstance(right, set | frozenset):
        budget.spend(size_of(left) + size_of(right))
        return left | right
    raise Unsupported


OPERATIONS: dict[str, Callable[[Any, Any, Budget], object]] = {
    "==": _compare(operator.eq),
    "!=": _compare(operator.ne),
    "<": _compare(operator.lt),
    "<=": _compare(operator.le),
    ">": _compare(operator.gt),
    ">=": _compare(operator.ge),
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _modulo,
    "|": _union,
}


def hint_for(symbol: str, left: object, right: object) -> str | None:
    """What may help where an operator does not work between two values."""
    if symbol == "+" and (isinstance(left, str) or isinstance(right, str)):
        return "str() makes a string of any value."
    if symbol in ("<", "<=", ">", ">=", "-", "*") and (
        isinstance(left, str) or isinstance(right, str)
    ):
        return "int() makes an integer of a string."
    return None
