"""JSON Schema of every kind of flow file, from the same metadata that the reader walks.

``neuro-flow schema live`` prints one; editors complete and check with it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from neuro.flow.syntax import places, tree
from neuro.flow.syntax.keys import (
    Choice,
    Key,
    ListOf,
    MapOf,
    Scalar,
    Section,
    Special,
    Table,
    keys_of,
)
from neuro.flow.syntax.types import (
    ATTEMPTS,
    BASH,
    ID,
    ID_PATTERN,
    PRIMITIVE,
    PYTHON,
    STR,
    ValueType,
)

Schema = dict[str, Any]

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "live": ("LiveFile",),
    "batch": ("BatchFile",),
    "project": ("ProjectFile",),
    "action": ("LiveAction", "BatchAction", "StatefulAction", "LocalAction"),
}

_TITLES: Final = {
    "live": "Live workflow",
    "batch": "Batch workflow",
    "project": "Project",
    "action": "Action",
}

_EXPRESSION: Final[Schema] = {"$ref": "#/$defs/expression"}
_TEMPLATE: Final[Schema] = {"$ref": "#/$defs/template"}
_NO_EXPRESSIONS: Final[Schema] = {"not": {"type": "string", "pattern": r"\$\{\{|\$\[\["}}
_NULL: Final[Schema] = {"type": "null"}
_ROW: Final[Schema] = {
    "type": "object",
    "propertyNames": {"pattern": ID_PATTERN},
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def schema(kind: str) -> Schema:
    """The JSON Schema of a kind of file: live, batch, project or action."""
    return _SchemaBuilder().build(kind)


class _SchemaBuilder:
    def __init__(self) -> None:
        self._definitions: dict[str, Schema] = {
            "expression": {
                "type": "string",
                "pattern": r"^(\$\{\{[\s\S]*\}\}|\$\[\[[\s\S]*\]\])$",
                "description": "An expression: ${{ ... }}",
            },
            "template": {
                "type": "string",
                "pattern": r"\$\{\{[\s\S]*\}\}|\$\[\[[\s\S]*\]\]",
                "description": "Text with expressions: ${{ ... }}",
            },
        }

    def build(self, kind: str) -> Schema:
        names = KINDS[kind]
        roots = [self._reference(name) for name in names]
        if kind == "action":
            for name, root_kind in zip(names, tree.ACTION_KINDS, strict=True):
                self._definitions[name]["properties"]["kind"] = {
                    "const": root_kind,
                    "description": "What the action is.",
                }
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": _TITLES[kind],
            **(roots[0] if len(roots) == 1 else {"oneOf": roots}),
            "$defs": dict(sorted(self._definitions.items())),
        }

    def _reference(self, name: str) -> Schema:
        if name not in self._definitions:
            # Known before it is complete: a definition may need itself.
            self._definitions[name] = {}
            self._definitions[name].update(self._object(getattr(tree, name)))
        return {"$ref": f"#/$defs/{name}"}

    def _object(self, node: type[tree.TreeNode]) -> Schema:
        keys = keys_of(node)
        properties: Schema = {}
        for name, key in keys.items():
            properties[name] = self._property(node, name, key)
            if _is_command(key):
                for word, of, shell in (("bash", BASH, "Bash"), ("python", PYTHON, "Python")):
                    properties[word] = {
                        **_optional(_value(of)),
                        "description": f"The command, as a script for {shell}.",
                    }
        made: Schema = {
            "type": "object",
            "description": (node.__doc__ or "").split("\n")[0].replace("``", ""),
            "properties": properties,
            "additionalProperties": False,
        }
        required = [n for n, key in keys.items() if key.required and not _is_command(key)]
        if issubclass(node, tree.Call | tree.TaskCall):
            made["oneOf"] = [{"required": ["action"]}, {"required": ["module"]}]
        if node is tree.LocalAction:
            made["oneOf"] = [{"required": [word]} for word in places.COMMANDS]
        elif any(_is_command(key) for key in keys.values()):
            pairs = (("cmd", "bash"), ("cmd", "python"), ("bash", "python"))
            made["not"] = {"anyOf": [{"required": list(pair)} for pair in pairs]}
        if required:
            made["required"] = required
        return made

    def _property(self, node: type[tree.TreeNode], name: str, key: Key) -> Schema:
        found = self._spec(node, name, key)
        calls = issubclass(node, tree.Call | tree.TaskCall) and name in ("action", "module")
        if not key.required and not calls:
            found = _optional(found)
        return {**found, "description": key.doc}

    def _spec(self, node: type[tree.TreeNode], name: str, key: Key) -> Schema:
        match key.spec:
            case Scalar(of):
                return _value(of)
            case ListOf(of, optional):
                item = _optional(_value(of)) if optional else _value(of)
                return {"anyOf": [{"type": "array", "items": item}, _EXPRESSION]}
            case MapOf(of):
                entries = {"type": "object", "additionalProperties": _value(of)}
                return {"anyOf": [entries, _EXPRESSION]}
            case Choice(_, words):
                return {"enum": list(words)}
            case Section(of_section):
                return dict(self._reference(of_section))
            case Table(of_entries):
                return _table(self._reference(of_entries))
            case Special(shape):
                return self._special(node, shape)

    def _special(self, node: type[tree.TreeNode], shape: str) -> Schema:
        match shape:
            case "command":
                return _value(STR)
            case "params":
                return _table({"anyOf": [self._reference("Param"), _value(STR), _NULL]})
            case "inputs":
                short = dict(PRIMITIVE.schema)
                return _table({"anyOf": [self._reference("Input"), short, _NULL]})
            case "outputs":
                return self._outputs(batch=node is tree.BatchAction)
            case "input default":
                return dict(PRIMITIVE.schema)
            case "jobs":
                return _table(self._either("LiveJob", "Call"))
            case "tasks":
                return {"type": "array", "items": self._either("Task", "TaskCall")}
            case "needs":
                return {
                    "anyOf": [
                        {"type": "array", "items": _value(ID)},
                        {
                            "type": "object",
                            "additionalProperties": {"enum": list(tree.NEED_LEVELS)},
                        },
                    ]
                }
            case "retry":
                return {"anyOf": [self._reference("Retry"), _value(ATTEMPTS)]}
            case "concurrency":
                return {"anyOf": [self._reference("Concurrency"), _value(STR)]}
            case _:
                rows = _optional({"type": "array", "items": _ROW})
                return {
                    "type": "object",
                    "propertyNames": {"pattern": ID_PATTERN},
                    "properties": {"include": rows, "exclude": rows},
                    "additionalProperties": {
                        "anyOf": [{"type": "array", "items": _value(PRIMITIVE)}, _EXPRESSION]
                    },
                }

    def _either(self, plain: str, call: str) -> Schema:
        """One or the other by its keys, so that an editor tells what is wrong with that one."""
        return {
            "if": {"anyOf": [{"required": ["action"]}, {"required": ["module"]}]},
            "then": self._reference(call),
            "else": self._reference(plain),
        }

    def _outputs(self, *, batch: bool) -> Schema:
        properties: Schema = {"descr": _optional({"type": "string"})}
        output: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if batch:
            properties["value"] = _value(STR)
            output["required"] = ["value"]
            table = _table(output)
            table["properties"] = {"needs": {"anyOf": [{"type": "array"}, output]}}
            return table
        return _table(output)


def _is_command(key: Key) -> bool:
    return isinstance(key.spec, Special) and key.spec.shape == "command"


def _table(entry: Schema) -> Schema:
    return {
        "type": "object",
        "propertyNames": {"pattern": ID_PATTERN},
        "additionalProperties": entry,
    }


def _optional(found: Schema) -> Schema:
    return {"anyOf": [*found["anyOf"], _NULL] if set(found) == {"anyOf"} else [found, _NULL]}


def _value(of: ValueType) -> Schema:
    constant = dict(of.schema)
    any_text = set(constant) == {"type"} and "string" in constant["type"]
    if not of.expressions:
        return {**constant, **_NO_EXPRESSIONS} if any_text else constant
    if of.mixes:
        return constant if any_text else {"anyOf": [constant, _TEMPLATE]}
    return {"anyOf": [constant, _EXPRESSION]}


def text(kind: str) -> str:
    """A schema as its published file has it."""
    return json.dumps(schema(kind), indent=2) + "\n"
