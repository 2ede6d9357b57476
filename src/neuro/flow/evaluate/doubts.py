"""Warns of values that the rules of flow files allow, and that are rarely meant."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from neuro.flow.evaluate.static import values_of
from neuro.flow.expressions.nodes import Literal, calls

if TYPE_CHECKING:
    from neuro.flow.problems import Report
    from neuro.flow.syntax import tree


def doubt_hashes(file: tree.TreeNode, root: Path, report: Report, *, batch: bool) -> None:
    """Note the patterns of hash_files() that match no file: a hash of nothing never changes.

    Patterns that expressions make are not looked at.
    """
    nodes: list[tree.TreeNode] = [file, *getattr(file, "tasks", ())]
    for value in (value for node in nodes for _, value in values_of(node, batch=batch)):
        if value.template is None:
            continue
        for call in calls(value.template):
            if call.function != "hash_files":
                continue
            for argument in call.arguments:
                if not isinstance(argument, Literal) or not isinstance(argument.value, str):
                    continue
                if not _matches(root, argument.value):
                    report.note(
                        f"hash_files('{argument.value}') matches no file: the hash stays the same,"
                        " whatever changes",
                        value.template.locate(argument.offset),
                        "Patterns begin at the workspace's folder; [ ] in a name is written [[].",
                    )


def _matches(root: Path, pattern: str) -> bool:
    try:
        return any(path.is_file() for path in root.glob(pattern))
    except (ValueError, NotImplementedError, OSError):
        return True  # Not a pattern: its evaluation reports that.
