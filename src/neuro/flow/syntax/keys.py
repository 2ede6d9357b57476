"""The values that a key of a flow file takes, as metadata of the tree's fields.

The reader and the JSON Schema walk the same specifications, so that they cannot disagree.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any, Final, TypeVar, cast, dataclass_transform

import msgspec

from neuro.flow.syntax.types import ValueType


class Stage(Enum):
    """When a value is evaluated, which decides the names that it sees.

    docs/reference/flow-language.md, "Order", has the names of each.
    """

    CONSTANT = "constant"
    SECTIONS = "sections"
    PARAMS = "params"
    JOB = "job"
    FILE = "file"
    GRAPH = "graph"
    MATRIX = "matrix"
    ROW = "row"
    TASK = "task"
    OUTPUTS = "outputs"
    LOCAL = "local"


class Scalar(msgspec.Struct, frozen=True, eq=False):
    """One value."""

    type: ValueType


class ListOf(msgspec.Struct, frozen=True, eq=False):
    """A sequence of values, or one expression. ``optional``: null items are dropped."""

    type: ValueType
    optional: bool = False


class MapOf(msgspec.Struct, frozen=True, eq=False):
    """A mapping of values, or one expression."""

    type: ValueType


class Choice(msgspec.Struct, frozen=True, eq=False):
    """One of a few words."""

    what: str
    words: tuple[str, ...]


class Section(msgspec.Struct, frozen=True, eq=False):
    """A mapping with keys of its own: a class of the tree, by name."""

    node: str


class Table(msgspec.Struct, frozen=True, eq=False):
    """A mapping of ids to entries: a class of the tree, by name."""

    node: str


class Special(msgspec.Struct, frozen=True, eq=False):
    """A shape that the reader and the schema know by its name."""

    shape: str


Spec = Scalar | ListOf | MapOf | Choice | Section | Table | Special


class Key(msgspec.Struct, frozen=True, eq=False):
    """A key: what it takes, whether it must be there, where its expressions are evaluated."""

    spec: Spec
    doc: str
    required: bool = False
    # When a live and when a batch file evaluates it; empty or None: it has no expressions there.
    stages: tuple[Stage | None, ...] = ()


_METADATA: Final = "key"


def key(
    spec: Spec, doc: str, *stages: Stage | None, required: bool = False, default: Any = None
) -> Any:
    """A field of the tree that a key of the file fills."""
    return field(default=default, metadata={_METADATA: Key(spec, doc, required, stages)})


def table_key(spec: Spec, doc: str, *stages: Stage | None, required: bool = False) -> Any:
    """A field that is an empty mapping where the key is absent or null."""
    return field(default_factory=dict, metadata={_METADATA: Key(spec, doc, required, stages)})


C = TypeVar("C")


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    eq_default=False,
    field_specifiers=(key, table_key, field),
)
def tree_node(*, init: bool) -> Callable[[type[C]], type[C]]:
    """Decorate a frozen dataclass of the tree.

    Its methods are inherited, and ``init=False`` says so: generating an own set for each of some
    thirty classes would take longer than reading a file with them.
    """
    return dataclass(init=init, repr=False, eq=False, match_args=False)


def fill(node: object, values: Mapping[str, object]) -> None:
    """Set all fields of a new node: to the values, or else to their defaults."""
    filled = dict(values)
    for entry in fields(cast(Any, node)):
        if entry.name not in filled:
            if entry.default_factory is not MISSING:
                filled[entry.name] = entry.default_factory()
            elif entry.default is not MISSING:
                filled[entry.name] = entry.default
    node.__dict__.update(filled)


_KEYS: Final[dict[type, Mapping[str, Key]]] = {}


def keys_of(node: type) -> Mapping[str, Key]:
    """The keys of a class of the tree, by name, in their order."""
    if node not in _KEYS:
        _KEYS[node] = _collect(node)
    return _KEYS[node]


def _collect(node: type) -> Mapping[str, Key]:
    return {
        entry.name: entry.metadata[_METADATA]
        for entry in fields(node)
        if _METADATA in entry.metadata
    }
