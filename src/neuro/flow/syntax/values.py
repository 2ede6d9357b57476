"""YAML nodes as values of the tree: constants converted, expressions parsed."""

from typing import TYPE_CHECKING

from neuro.domain.problems import nearest
from neuro.flow.problems import Report
from neuro.flow.syntax.bad_values import BadValue, describe
from neuro.flow.syntax.keys import Choice
from neuro.flow.syntax.types import (
    STR,
    ListValue,
    MapValue,
    Value,
    ValueType,
    identifier,
)
from neuro.flow.syntax.yaml_nodes import Entries, Items, YamlNode, YamlScalar

if TYPE_CHECKING:
    from neuro.flow.expressions.nodes import Template


def is_null(node: YamlNode) -> bool:
    """Whether a node is null, or empty."""
    return isinstance(node, YamlScalar) and node.data is None


def kind_of(node: YamlNode) -> str:
    """The name of a node's type in a message."""
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Entries):
        return "a mapping"
    return describe(node.data)


def has_expression(node: YamlScalar) -> bool:
    """Whether the parser of expressions has anything to do: most scalars never reach it."""
    return "$" in node.text and ("${{" in node.text or "$[[" in node.text)


def _as_words(node: YamlNode, where: str) -> str | None:
    """A hint for a command that is written as other tools have it."""
    if where not in ("'cmd'", "'entrypoint'") or not isinstance(node, Items):
        return None
    import shlex

    words = [item.text for item in node.items if isinstance(item, YamlScalar)]
    return f"Write it as a shell would read it: {shlex.join(words)}"


class ValueReader:
    """Reads values, and reports what is wrong with them."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def expected(self, what: str, node: YamlNode, hint: str | None = None) -> None:
        self.report.add(f"expected {what}, got {kind_of(node)}", node.at, hint)

    def scalar(self, of: ValueType, node: YamlNode, where: str) -> Value | None:
        """One value; ``where`` names its key in messages."""
        if not isinstance(node, YamlScalar):
            self.expected(f"{where} to be one value", node, _as_words(node, where))
            return None
        if has_expression(node):
            return self._expression(of, node, where)
        return self._constant(of, node, node.data)

    def _constant(self, of: ValueType, node: YamlScalar, data: object) -> Value | None:
        if data == "" and not of.mixes and of.expressions:
            self.report.add(f"Empty value is not allowed for {of.name}", node.at)
            return None
        try:
            value = of.constant(data)
            if of is STR and not isinstance(data, str) and value != node.text:
                self.report.note(
                    f"{node.text} is sent as the string {value}: YAML reads it as {describe(data)}",
                    node.at,
                    f"To send what is written, quote it: '{node.text}'",
                )
            return Value(of, node.at, value)
        except ValueError as error:
            hint = error.hint if isinstance(error, BadValue) else None
            self.report.add(str(error), node.at, hint)
            return None

    def _expression(self, of: ValueType, node: YamlScalar, where: str) -> Value | None:
        if not of.expressions:
            offset = min(o for o in (node.text.find("${{"), node.text.find("$[[")) if o >= 0)
            self.report.add(f"Expressions are not allowed in {where}", node.locate(offset))
            return None
        template = self._template(node)
        if template is None:
            return None
        if isinstance(template, str):
            return self._constant(of, node, template)
        if not of.mixes and template.single is None:
            self.report.add(
                f"Implicit concatenation is not allowed for {of.name}",
                node.at,
                "Write one expression without text around it.",
            )
            return None
        return Value(of, node.at, template=template)

    def _template(self, node: YamlScalar) -> "Template | str | None":
        # Imported here: a file without expressions does without.
        from neuro.flow.expressions.parser import parse_template

        return parse_template(node.text, node.locate, self.report)

    def _spread(self, of: ValueType, node: YamlScalar, what: str, where: str) -> Value | None:
        """One expression that gives a whole list or mapping."""
        if not has_expression(node):
            hint = None
            if what == "a list" and node.text:
                hint = f"Write it as a list: [{node.text}]" if len(node.text) < 60 else None
            self.expected(f"{where} to be {what}", node, hint)
            return None
        template = self._template(node)
        if template is None:
            return None
        if isinstance(template, str) or template.single is None:
            self.report.add(
                f"expected {where} to be {what}, got a string with expressions",
                node.at,
                f"Write {what}, or one expression that gives it.",
            )
            return None
        return Value(of, node.at, template=template, spread=True)

    def items(
        self, of: ValueType, node: YamlNode, where: str, *, optional: bool = False
    ) -> ListValue | None:
        """A list of values, or one expression."""
        if isinstance(node, YamlScalar):
            spread = self._spread(of, node, "a list", where)
            return ListValue(of, node.at, (spread,)) if spread else None
        if isinstance(node, Entries):
            self.expected(f"{where} to be a list", node, "Start each item with a dash.")
            return None
        parts = []
        for item in node.items:
            if is_null(item):
                if not optional:
                    self.report.add(f"An item of {where} has no value", item.at, _EMPTY)
            elif (value := self.scalar(of, item, f"an item of {where}")) is not None:
                parts.append(value)
        return ListValue(of, node.at, tuple(parts))

    def entries(self, of: ValueType, node: YamlNode, where: str) -> MapValue | None:
        """A mapping of values, or one expression."""
        if isinstance(node, YamlScalar):
            spread = self._spread(of, node, "a mapping", where)
            return MapValue(of, node.at, ((None, spread),)) if spread else None
        if isinstance(node, Items):
            self.expected(f"{where} to be a mapping", node, "Write KEY: value, without a dash.")
            return None
        parts: list[tuple[str | None, Value]] = []
        for key, item in node.entries:
            name = self.word(key)
            if name is None:
                continue
            if is_null(item):
                self.report.add(f"'{name}' has no value", key.at, _EMPTY)
            elif (value := self.scalar(of, item, f"'{name}'")) is not None:
                parts.append((name, value))
        return MapValue(of, node.at, tuple(parts))

    def word(self, key: YamlScalar) -> str | None:
        """A key that YAML reads as a string."""
        if isinstance(key.data, str):
            return key.data
        self.report.add(
            f"expected a string as a key, got {describe(key.data)}",
            key.at,
            f"YAML reads {key.text or 'nothing'} as {describe(key.data)}: put it in quotes.",
        )
        return None

    def id(self, key: YamlScalar) -> str | None:
        """A key that is an id."""
        name = self.word(key)
        if name is None:
            return None
        try:
            return identifier(name)
        except BadValue as error:
            self.report.add(str(error), key.at, error.hint)
            return None

    def choice(self, spec: Choice, node: YamlNode) -> str | None:
        """One of a few words."""
        if not isinstance(node, YamlScalar):
            self.expected(f"a {spec.what}", node)
            return None
        if has_expression(node):
            self.report.add(f"Expressions are not allowed in a {spec.what}", node.locate(0))
            return None
        if node.data in spec.words:
            return node.text
        allowed = ", ".join(spec.words)
        self.report.add(
            f"'{node.text}' is not a valid {spec.what}, allowed: {allowed}",
            node.at,
            nearest(node.text, spec.words),
        )
        return None


_EMPTY = 'Write "" for empty text, or remove the line.'
