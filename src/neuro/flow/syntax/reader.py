"""From YAML to the typed tree of each kind of flow file, collecting every problem.

Wrong values are missing from the tree and reported: code that evaluates a tree asks the
report first, and whoever checks one goes on with what could be read. There is no tree at all
where the YAML is broken, or the file is of another kind.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from neuro.domain.problems import Source
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Choice
from neuro.flow.syntax.loading import MAX_BYTES, load_source
from neuro.flow.syntax.node_reader import NodeReader, entry_of
from neuro.flow.syntax.values import ValueReader, is_null
from neuro.flow.syntax.yaml import EMPTY_HINT, parse
from neuro.flow.syntax.yaml_nodes import Entries, YamlScalar

__all__ = [
    "MAX_BYTES",
    "load_source",
    "read_action",
    "read_any",
    "read_batch",
    "read_live",
    "read_project",
]

F = TypeVar("F")

FlowFile = tree.LiveFile | tree.BatchFile | tree.ProjectFile | tree.ActionFile

_ACTIONS: Final[Mapping[str, type[tree.ActionFile]]] = {
    "live": tree.LiveAction,
    "batch": tree.BatchAction,
    "stateful": tree.StatefulAction,
    "local": tree.LocalAction,
}


def read_live(source: Source, report: Report) -> tree.LiveFile | None:
    """Read ``live.yml``."""
    return _read(source, report, lambda reader, root: reader.file(tree.LiveFile, root))


def read_batch(source: Source, report: Report) -> tree.BatchFile | None:
    """Read a batch file."""
    return _read(source, report, lambda reader, root: reader.file(tree.BatchFile, root))


def read_project(source: Source, report: Report) -> tree.ProjectFile | None:
    """Read ``project.yml``."""
    return _read(source, report, lambda reader, root: reader.node(tree.ProjectFile, root))


def read_action(source: Source, report: Report) -> tree.ActionFile | None:
    """Read an action of any kind."""
    return _read(source, report, _action)


def read_any(source: Source, report: Report) -> FlowFile | None:
    """Read a file as what its kind and its keys say that it is."""
    return _read(source, report, _any)


def _read(source: Source, report: Report, reading: Callable[[NodeReader, Entries], F]) -> F | None:
    root = parse(source, report)
    if root is None:
        return None
    if is_null(root):
        report.add("The file is empty", source.position(0), EMPTY_HINT)
        return None
    if not isinstance(root, Entries):
        ValueReader(report).expected("the file to be a mapping", root, EMPTY_HINT)
        return None
    return reading(NodeReader(report), root)


def _action(reader: NodeReader, root: Entries) -> tree.ActionFile | None:
    node = entry_of(root, "kind")
    if node is None or is_null(node):
        reader.report.add(
            "missing mandatory key 'kind'",
            root.at,
            f"An action is one of: {', '.join(tree.ACTION_KINDS)}.",
        )
        return None
    spec = Choice("action kind", tree.ACTION_KINDS)
    kind = reader.choice(spec, node)
    return reader.node(_ACTIONS[kind], root) if kind is not None else None


def _any(reader: NodeReader, root: Entries) -> FlowFile | None:
    node = entry_of(root, "kind")
    if node is None:
        for key, kind in (("jobs", "live"), ("tasks", "batch")):
            if entry_of(root, key) is not None:
                reader.report.add(
                    "missing mandatory key 'kind'", root.at, f"A file with {key} has kind: {kind}"
                )
                return None
        return reader.node(tree.ProjectFile, root)
    kind = node.text if isinstance(node, YamlScalar) else ""
    marks = {"inputs", "outputs", "job", "main", "post", "author", "descr", "name"}
    if kind in ("stateful", "local") or any(key.data in marks for key, _ in root.entries):
        return _action(reader, root)
    if kind in ("live", "batch"):
        if kind == "live":
            return reader.file(tree.LiveFile, root)
        return reader.file(tree.BatchFile, root)
    reader.choice(Choice("kind", tree.ACTION_KINDS), node)
    return None
