"""Reads the matrix of a task's strategy."""

from neuro.domain.problems import Position, nearest
from neuro.flow.syntax import tree
from neuro.flow.syntax.types import PRIMITIVE, ListValue, Value
from neuro.flow.syntax.values import ValueReader, is_null
from neuro.flow.syntax.yaml_nodes import Entries, Items, YamlNode


def read_matrix(reader: ValueReader, node: YamlNode) -> tree.Matrix | None:
    """A matrix: lists of values, and rows beside or without what they make."""
    if not isinstance(node, Entries):
        reader.expected("'matrix' to be a mapping", node)
        return None
    products: dict[str, ListValue] = {}
    key_at: dict[str, Position] = {}
    rows: dict[str, tuple[tree.MatrixRow, ...]] = {}
    broken = False
    for key, item in node.entries:
        if key.data in ("include", "exclude"):
            rows[key.text] = _rows(reader, item, f"'{key.text}'")
            continue
        name = reader.id(key)
        if is_null(item):
            reader.report.add(f"'{key.text}' has no value: expected a list", key.at)
            broken = True
            continue
        product = reader.items(PRIMITIVE, item, f"'{key.text}'")
        broken |= name is None or product is None
        if name is not None and product is not None:
            key_at[name] = key.at
            products[name] = product
    matrix = tree.Matrix(
        at=node.at,
        specified=frozenset(key.text for key, _ in node.entries),
        key_at=key_at,
        products=products,
        exclude=rows.get("exclude", ()),
        include=rows.get("include", ()),
    )
    if not broken:
        _check_rows(reader, matrix)
    return matrix


def _rows(reader: ValueReader, node: YamlNode, where: str) -> tuple[tree.MatrixRow, ...]:
    if is_null(node):
        return ()
    if not isinstance(node, Items):
        reader.expected(f"{where} to be a list", node, "Start each row with a dash.")
        return ()
    found: list[tree.MatrixRow] = []
    for item in node.items:
        if not isinstance(item, Entries):
            reader.expected(f"a row of {where} to be a mapping", item)
            continue
        values: dict[str, Value] = {}
        key_at: dict[str, Position] = {}
        for key, entry in item.entries:
            name = reader.id(key)
            if is_null(entry):
                reader.report.add(f"'{key.text}' has no value", key.at)
                continue
            value = reader.scalar(PRIMITIVE, entry, f"'{key.text}'")
            if name is not None and value is not None:
                key_at[name] = key.at
                values[name] = value
        found.append(
            tree.MatrixRow(at=item.at, specified=frozenset(values), key_at=key_at, values=values)
        )
    return tuple(found)


def _check_rows(reader: ValueReader, matrix: tree.Matrix) -> None:
    # Empty products count as absent. Without any, the first row says what the keys are.
    names = {name for name, product in matrix.products.items() if product.parts}
    for row in matrix.exclude:
        for name in row.values:
            if name not in matrix.products:
                known = ", ".join(sorted(names))
                reader.report.add(
                    f"'{name}' is not a key of the matrix",
                    row.key_at[name],
                    nearest(name, names)
                    or (f"Its keys are: {known}." if known else "It has no lists of values."),
                )
    if not names and matrix.include:
        names = set(matrix.include[0].values)
    for row in matrix.include:
        additional = sorted(set(row.values) - names)
        missing = sorted(names - set(row.values))
        if additional or missing:
            parts = []
            if additional:
                parts.append(f"additional keys: {', '.join(additional)}")
            if missing:
                parts.append(f"missing keys: {', '.join(missing)}")
            reader.report.add(
                "Keys of entry in include list of matrix are not the same as matrix keys: "
                + ", ".join(parts),
                row.at,
            )
