"""The base of all nodes of the tree."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from neuro.domain.problems import Position
from neuro.flow.syntax.keys import (
    Stage,
    fill,
    tree_node,
)

SECTION_STAGES: Final = (Stage.SECTIONS, Stage.SECTIONS)
FILE_STAGES: Final = (None, Stage.FILE)
UNIT_STAGES: Final = (Stage.JOB, Stage.TASK)


@tree_node(init=False)
class TreeNode:
    """A mapping of a file."""

    at: Position
    # The keys that are present, null included.
    specified: frozenset[str] = frozenset()
    key_at: Mapping[str, Position] = field(default_factory=dict)

    def __init__(self, *, at: Position, **values: Any) -> None:
        fill(self, {"at": at, **values})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")
