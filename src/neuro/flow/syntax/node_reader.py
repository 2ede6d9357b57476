"""Reads mappings as nodes of the typed tree, by the metadata of their fields."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from neuro.domain.problems import Position
from neuro.flow.syntax import places, tree
from neuro.flow.syntax.bad_values import describe
from neuro.flow.syntax.keys import Choice, Key, ListOf, MapOf, Section, Special, Table, keys_of
from neuro.flow.syntax.keys import Scalar as ScalarKey
from neuro.flow.syntax.matrix import read_matrix
from neuro.flow.syntax.needs import read_needs
from neuro.flow.syntax.types import (
    ATTEMPTS,
    BASH,
    PYTHON,
    SIMPLE_PRIMITIVE,
    SIMPLE_STR,
    STR,
    ValueType,
)
from neuro.flow.syntax.values import ValueReader, is_null
from neuro.flow.syntax.yaml_nodes import Entries, Items, YamlNode, YamlScalar

N = TypeVar("N", bound=tree.TreeNode)

_COMMAND_TYPES: Final = {"cmd": STR, "bash": BASH, "python": PYTHON}
_INPUT_CLASSES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
}


def entry_of(root: Entries, name: str) -> YamlNode | None:
    """The value of a key, if it is there."""
    for key, node in root.entries:
        if key.data == name:
            return node
    return None


class NodeReader(ValueReader):
    """Reads mappings as classes of the tree, by the metadata of their fields."""

    def file(self, cls: type[N], root: Entries) -> N | None:
        """A file whose kind must be the expected one; otherwise little else would make sense."""
        wanted = cast(Choice, keys_of(cls)["kind"].spec).words[0]
        kind = entry_of(root, "kind")
        if isinstance(kind, YamlScalar) and kind.data in tree.ACTION_KINDS and kind.data != wanted:
            self.report.add(
                f"expected a file of kind {wanted}, got {kind.data}",
                kind.at,
                "Batches are files of their own, and live.yml is of kind live."
                if kind.data in ("live", "batch")
                else "This is an action: call it from a job or a task with action: ws:path",
            )
            return None
        marks = [key for key, _ in root.entries if key.data in ("inputs", "outputs")]
        if cls is tree.BatchFile and marks:
            self.report.add(
                f"expected a batch, got an action: it has {marks[0].text}",
                marks[0].at,
                "Call it from a batch, with `action: ws:path`. A batch itself takes `params`.",
            )
            return None
        return self.node(cls, root)

    def node(self, cls: type[N], node: YamlNode) -> N | None:
        """A mapping with keys of its own."""
        if not isinstance(node, Entries):
            self.expected("a mapping", node)
            return None
        keys = keys_of(cls)
        found: dict[str, Any] = {}
        key_at: dict[str, Position] = {}
        commands: list[str] = []
        # That these are missing would be the same mistake, told twice.
        misspelt: set[str | None] = set()
        for key, item in node.entries:
            word = self.word(key)
            if word is None:
                continue
            attribute = word
            if word in places.COMMANDS:
                attribute = "cmd"
                commands.append(word)
            spec = keys.get(attribute)
            if spec is None:
                self._unexpected(word, key, cls)
                wanted = places.meant(word, cls)
                misspelt.add("cmd" if wanted in places.COMMANDS else wanted)
                continue
            if attribute in found:
                self.report.add(
                    f"{commands[0]},{word} are mutually exclusive",
                    key.at,
                    "Keep one of them.",
                )
                continue
            key_at[word] = key_at[attribute] = key.at
            found[attribute] = self._value(cls, spec, word, key, item)
        for name, spec in keys.items():
            if spec.required and name not in found and name not in misspelt:
                self._missing(name, cls, node)
        given_values = {name: value for name, value in found.items() if value is not None}
        specified = frozenset(found).union(key for key in misspelt if key is not None)
        made = cls(at=node.at, specified=specified, key_at=key_at, **given_values)
        if isinstance(made, tree.Image):
            self._check_image(made, node)
        return made

    def _unexpected(self, word: str, key: YamlScalar, cls: type[tree.TreeNode]) -> None:
        if self.report.full:
            return
        message = f"unexpected key '{word}'"
        if issubclass(cls, tree.Call | tree.TaskCall):
            message += " in a call of an action or a module"
        self.report.add(message, key.at, places.hint(word, cls))

    def _missing(self, name: str, cls: type[tree.TreeNode], node: Entries) -> None:
        hint = None
        if cls is tree.LocalAction and name == "cmd":
            hint = "One of cmd, bash, python must be there."
        elif cls is tree.Strategy:
            hint = (
                "Without a matrix, `fail_fast` and `max_parallel` are for all tasks: write them "
                "into `defaults:` of the file."
            )
        elif name == "kind":
            hint = f"Write kind: {'live' if cls is tree.LiveFile else 'batch'}"
        self.report.add(f"missing mandatory key '{name}'", node.at, hint)

    def _value(
        self, cls: type[tree.TreeNode], key: Key, word: str, at: YamlScalar, node: YamlNode
    ) -> object:
        """Read a key's value. None where it is null, or wrong."""
        if is_null(node):
            if key.required:
                self.report.add(f"'{word}' has no value, and it is mandatory", at.at)
            return None
        where = f"'{word}'"
        match key.spec:
            case ScalarKey(of):
                return self.scalar(of, node, where)
            case ListOf(of, optional):
                return self.items(of, node, where, optional=optional)
            case MapOf(of):
                return self.entries(of, node, where)
            case Choice() as choice:
                return self.choice(choice, node)
            case Section(name):
                return self.node(getattr(tree, name), node)
            case Table(name):
                return self._table(node, where, lambda item, _: self.node(_class(name), item))
            case Special(shape):
                return self._special(shape, cls, word, node)

    def _special(self, shape: str, cls: type[tree.TreeNode], word: str, node: YamlNode) -> object:
        where = f"'{word}'"
        match shape:
            case "command":
                return self.scalar(_COMMAND_TYPES[word], node, where)
            case "params":
                return self._table(node, where, self._param, nulls=True)
            case "inputs":
                return self._table(node, where, self._input, nulls=True)
            case "outputs":
                batch = cls is tree.BatchAction
                return self._outputs(node, where, batch=batch)
            case "input default":
                return self.scalar(SIMPLE_PRIMITIVE, node, where)
            case "jobs":
                return self._table(node, where, self._job)
            case "tasks":
                return self._tasks(node)
            case "needs":
                return read_needs(self, node)
            case "retry":
                return self._short(tree.Retry, "attempts", ATTEMPTS, node, where)
            case "concurrency":
                return self._short(tree.Concurrency, "group", STR, node, where)
            case _:
                return read_matrix(self, node)

    def _table(
        self,
        node: YamlNode,
        where: str,
        read: Callable[[YamlNode, YamlScalar], N | None],
        *,
        nulls: bool = False,
    ) -> dict[str, N] | None:
        """A mapping of ids to entries."""
        if not isinstance(node, Entries):
            hint = "Write an id, a colon and then the entry, without a dash."
            self.expected(f"{where} to be a mapping", node, hint)
            return None
        entries: dict[str, N] = {}
        for key, item in node.entries:
            name = self.id(key)
            if is_null(item) and not nulls:
                self.report.add(f"'{key.text}' is empty: expected a mapping", key.at)
                continue
            entry = read(item, key)
            if name is not None and entry is not None:
                entries[name] = entry
        return entries

    def _check_image(self, image: tree.Image, node: Entries) -> None:
        context, dockerfile = entry_of(node, "context"), entry_of(node, "dockerfile")
        if _given(context) != _given(dockerfile):
            given = "context" if _given(context) else "dockerfile"
            self.report.add(
                "Partially defined image: either both context and dockerfile should be set "
                "or not set",
                image.key_at[given],
            )

    # Shapes of their own.

    def _short(
        self, cls: type[N], name: str, of: ValueType, node: YamlNode, where: str
    ) -> N | None:
        """A mapping, or the value of its main key alone."""
        if not isinstance(node, YamlScalar):
            return self.node(cls, node)
        value = self.scalar(of, node, where)
        if value is None:
            return None
        return cls(at=node.at, specified=frozenset({name}), **{name: value})

    def _param(self, node: YamlNode, key: YamlScalar) -> tree.Param | None:
        if isinstance(node, Entries):
            return self.node(tree.Param, node)
        if is_null(node):
            return tree.Param(at=key.at)
        default = self.scalar(STR, node, f"the default of '{key.text}'")
        if default is None:
            return None
        return tree.Param(at=key.at, specified=frozenset({"default"}), default=default)

    def _input(self, node: YamlNode, key: YamlScalar) -> tree.Input | None:
        if is_null(node):
            return tree.Input(at=key.at)
        if not isinstance(node, Entries):
            # The short form: the default of a string.
            default = self.scalar(SIMPLE_STR, node, f"the default of '{key.text}'")
            if default is None:
                return None
            return tree.Input(at=key.at, specified=frozenset({"default"}), default=default)
        made = self.node(tree.Input, node)
        default_node = entry_of(node, "default")
        if made is not None and made.default is not None and isinstance(default_node, YamlScalar):
            self._check_default(made.type, default_node)
        return made

    def _check_default(self, name: str, node: YamlScalar) -> None:
        if isinstance(node.data, _INPUT_CLASSES[name]):
            return
        if name == "str":
            given = type(node.data).__name__
            hint = "Put it in quotes"
            hint += f", or write type: {given}" if given in _INPUT_CLASSES else ""
        elif name == "float" and type(node.data) is int:
            hint = f"Write {node.data}.0"
        else:
            hint = f"Write a value of type {name}"
        self.report.add(
            f"The default is {describe(node.data)}, and the input's type is {name}",
            node.at,
            f"{hint}.",
        )

    def _outputs(self, node: YamlNode, where: str, *, batch: bool) -> dict[str, tree.Output] | None:
        if batch and isinstance(node, Entries):
            # A list under this name is from the past, and without effect.
            kept = Entries(node.source, node.start)
            kept.entries = [
                (key, item)
                for key, item in node.entries
                if not (key.data == "needs" and isinstance(item, Items))
            ]
            node = kept

        def read(item: YamlNode, key: YamlScalar) -> tree.Output | None:
            if batch and isinstance(item, YamlScalar):
                hint = f"Write the value below it: {key.text}: {{value: {item.text}}}"
                self.expected(f"'{key.text}' to be a mapping", item, hint)
                return None
            output = self.node(tree.Output, item)
            if output is not None and isinstance(item, Entries):
                if batch and entry_of(item, "value") is None:
                    self.report.add("missing mandatory key 'value'", item.at)
                elif not batch and "value" in output.specified:
                    self.report.add(
                        "unexpected key 'value'",
                        output.key_at["value"],
                        "Only a batch action computes outputs; the command of others writes them.",
                    )
            return output

        return self._table(node, where, read)

    def _job(self, node: YamlNode, key: YamlScalar) -> tree.LiveJob | tree.Call | None:
        if self._is_call(node):
            return self.node(tree.Call, node)
        return self.node(tree.LiveJob, node)

    def _is_call(self, node: YamlNode) -> bool:
        if not isinstance(node, Entries):
            return False
        calls = [key for key, _ in node.entries if key.data in ("action", "module")]
        if len(calls) > 1:
            self.report.add(
                "action,module are mutually exclusive", calls[1].at, "Keep one of them."
            )
        for key in calls:
            if is_null(cast(YamlNode, entry_of(node, key.text))):
                self.report.add(f"'{key.text}' has no value", key.at)
        return bool(calls)

    def _tasks(self, node: YamlNode) -> tuple[tree.Task | tree.TaskCall, ...] | None:
        if not isinstance(node, Items):
            self.expected("'tasks' to be a list", node, "Start each task with a dash.")
            return None
        tasks: list[tree.Task | tree.TaskCall] = []
        for item in node.items:
            task: tree.Task | tree.TaskCall | None
            if self._is_call(item):
                task = self.node(tree.TaskCall, item)
            else:
                task = self.node(tree.Task, item)
            if task is not None:
                tasks.append(task)
        return tuple(tasks)


def _given(node: YamlNode | None) -> bool:
    return node is not None and not is_null(node)


def _class(name: str) -> type[tree.TreeNode]:
    return cast(type[tree.TreeNode], getattr(tree, name))
