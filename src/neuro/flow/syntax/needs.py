"""Reads what a task needs."""

from neuro.flow.syntax import tree
from neuro.flow.syntax.keys import Choice
from neuro.flow.syntax.types import ID, Value
from neuro.flow.syntax.values import ValueReader, has_expression, is_null
from neuro.flow.syntax.yaml_nodes import Entries, Items, YamlNode, YamlScalar


def read_needs(reader: ValueReader, node: YamlNode) -> tree.Needs | None:
    """Needs: a list of ids, or ids with how far each must have come."""
    parts: list[tuple[Value, str]] = []
    if isinstance(node, Items):
        for item in node.items:
            if is_null(item):
                reader.report.add("An item of 'needs' has no value", item.at)
            elif isinstance(item, Entries):
                better = f"Write them without dashes: `needs: {_as_levels(node)}`."
                reader.expected("an item of 'needs' to be an id", item, better)
                parts += _levels(reader, item)
            elif (need := _need(reader, item, "an item of 'needs'")) is not None:
                parts.append((need, "completed"))
    elif isinstance(node, Entries):
        parts = _levels(reader, node)
    else:
        hint = f"Write it as a list: [{node.text}]" if not has_expression(node) else None
        reader.expected("'needs' to be a list or a mapping", node, hint)
        return None
    return tree.Needs(at=node.at, parts=tuple(parts))


def _levels(reader: ValueReader, node: Entries) -> list[tuple[Value, str]]:
    parts: list[tuple[Value, str]] = []
    levels = Choice("level of needs", tree.NEED_LEVELS)
    for key, item in node.entries:
        need = _need(reader, key, "a key of 'needs'")
        level = reader.choice(levels, item)
        if need is not None and level is not None:
            parts.append((need, level))
    return parts


def _need(reader: ValueReader, node: YamlNode, where: str) -> Value | None:
    if isinstance(node, YamlScalar) and "-" in node.text and not has_expression(node):
        reader.report.add(
            f"{node.text!r} is not an identifier",
            node.at,
            "All rows of a matrix are needed by its plain id. One row can be needed where the "
            "id has expressions, such as train_${{ matrix.model }}.",
        )
        return None
    return reader.scalar(ID, node, where)


def _as_levels(needs: Items) -> str:
    """A list of needs some of which have levels, as it has to be written."""
    pairs = []
    for item in needs.items:
        entries = item.entries if isinstance(item, Entries) else [(item, None)]
        for key, level in entries:
            if isinstance(key, YamlScalar):
                text = level.text if isinstance(level, YamlScalar) else ""
                pairs.append(f"{key.text}: {text or 'completed'}")
    return f"{{{', '.join(pairs)}}}"
