"""The functions that expressions may call: how many arguments each takes, and the pure ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.flow.expressions.evaluator import Scope

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
    call: Callable[[Scope, Sequence[object]], object]
    doc: str
