"""Rows of matrices, and the ids that are made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from neuro.flow.expressions.nodes import references

if TYPE_CHECKING:
    from neuro.flow.evaluate.values import ValueEvaluator
    from neuro.flow.problems import Report
    from neuro.flow.syntax import tree
    from neuro.flow.syntax.types import ListValue, Value

MAX_ROWS = 256
# More combinations than this are not even tried: what is excluded counts here.
_MOST_COMBINATIONS = 100_000
_LONGEST_VALUE = 60

Row = Mapping[str, object]

# Letters of any language are fine, as they are in ids that people write.
_UNUSUAL = re.compile(r"[^\w.+-]")


def rows_of(
    matrix: tree.Matrix, number: int, values: ValueEvaluator, report: Report
) -> tuple[Row, ...] | None:
    """Compute the rows of a task's matrix; None where they cannot be known yet, or are wrong."""
    known = len(report.problems)
    products: dict[str, list[object]] = {}
    for key, source in matrix.products.items():
        items = values.items(source)
        # An empty list is as good as none, unless outputs say that there is nothing to do.
        if items or _reads_needs(source):
            products[key] = items
    exclude = [_row(row.values, values) for row in matrix.exclude]
    include = [_row(row.values, values) for row in matrix.include]
    if values.unknown or len(report.problems) > known:
        return None
    found: list[Row] = []
    if products or not include:
        combinations = prod(map(len, products.values()))
        if combinations > _MOST_COMBINATIONS:
            _too_many(combinations, number, matrix, report)
            return None
        for combination in product(*products.values()):
            row = dict(zip(products, combination, strict=True))
            if not any(_matches(row, partial) for partial in exclude):
                found.append(row)
    found += include
    if len(found) > MAX_ROWS:
        _too_many(len(found), number, matrix, report)
        return None
    return tuple({**row, "ORDINAL": ordinal} for ordinal, row in enumerate(found))


def _row(row: Mapping[str, Value], values: ValueEvaluator) -> dict[str, object]:
    return {key: values.one(value) for key, value in row.items()}


def _too_many(size: int, number: int, matrix: tree.Matrix, report: Report) -> None:
    report.add(
        f"The matrix size for task #{number} exceeds the limit of {MAX_ROWS}",
        matrix.at,
        f"It has {size} rows: let one row do more, or divide them among several tasks.",
    )


def _matches(row: Row, partial: Row) -> bool:
    return all(key in row and _same(row[key], value) for key, value in partial.items())


def _same(left: object, right: object) -> bool:
    # Python takes True for 1, people do not.
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _reads_needs(values: ListValue) -> bool:
    return any(reads(part, "needs") for part in values.parts)


def reads(value: Value | None, context: str) -> bool:
    """Whether a value has an expression that reads a context."""
    if value is None or value.template is None:
        return False
    return any(path[0] == context for path, _ in references(value.template))


def auto_id(number: int, row: Row) -> str:
    """Name a task without an id: `task-1-a-b`."""
    return "-".join([f"task-{number}", *(shown for _, shown in _shown(row))])


def row_id(name: str, row: Row) -> str:
    """Name a row of a task with an id of its own: `train-lr-0.1`."""
    return "-".join([name, *(f"{key}-{shown}" for key, shown in _shown(row))])


def _shown(row: Row) -> list[tuple[str, str]]:
    return [(key, _word(row[key])) for key in sorted(row) if key != "ORDINAL"]


def _word(value: object) -> str:
    text = _UNUSUAL.sub("_", str(value))
    data = text.encode()
    if len(data) <= _LONGEST_VALUE:
        return text
    from hashlib import sha256

    text = data[: _LONGEST_VALUE - 9].decode(errors="ignore")
    return f"{text}_{sha256(str(value).encode(errors='replace')).hexdigest()[:8]}"
