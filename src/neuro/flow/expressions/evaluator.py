"""Computes the values of expressions, within bounds.

An expression reaches the names of its scope, the items of mappings and lists, and the fields that
records declare: never an attribute of a Python object. What it may compute is bounded in steps and
in size, so that no file makes the reader hang or run out of memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from neuro.flow.expressions import functions, operators
from neuro.flow.expressions.nodes import (
    Attribute,
    Binary,
    Comprehension,
    Conditional,
    DictNode,
    ExpressionNode,
    FunctionCall,
    ListNode,
    Literal,
    Name,
    Subscript,
    Template,
    Unary,
)
from neuro.flow.expressions.text import Budget, TooMuch, to_text
from neuro.flow.expressions.values import Record, kind_of, ordered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuro.domain.problems import Position


class EvaluationError(Exception):
    """Why an expression has no value, where that shows, and what may help.

    A function knows no places: it names the `argument` that is wrong by its index.
    """

    def __init__(
        self,
        message: str,
        at: Position | None = None,
        hint: str | None = None,
        *,
        argument: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.at = at
        self.hint = hint
        self.argument = argument


class ExpressionScope:
    """The names and functions that an expression may use. The names may be a lazy mapping."""

    __slots__ = ("_budget", "functions", "names")

    def __init__(
        self,
        names: Mapping[str, object],
        functions: Mapping[str, functions.Function] = functions.STANDARD,
    ) -> None:
        self.names = names
        self.functions = functions
        self._budget: Budget | None = None

    @property
    def budget(self) -> Budget:
        """The budget left to the expression being evaluated."""
        if self._budget is None:
            self._budget = Budget()
        return self._budget

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Give one evaluation its budget; those within it share it."""
        if self._budget is not None:
            yield
            return
        self._budget = Budget()
        try:
            yield
        finally:
            self._budget = None


def evaluate(template: Template, scope: ExpressionScope) -> object:
    """A template's value: of any type for a single expression, a string otherwise."""
    with scope.spending():
        machine = _Evaluation(template, scope)
        single = template.single
        if single is not None:
            return machine.guarded(single)
        texts: list[str] = []
        for part in template.parts:
            if isinstance(part, str):
                texts.append(part)
            else:
                texts.append(machine.guarded_text(part))
        return "".join(texts)


class _Failed(Exception):
    """A failure that knows its node's offset."""

    def __init__(self, message: str, offset: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint


class _Evaluation:
    __slots__ = ("budget", "locals", "scope", "template")

    def __init__(self, template: Template, scope: ExpressionScope) -> None:
        self.template = template
        self.scope = scope
        self.budget = scope.budget
        self.locals: dict[str, object] = {}

    def guarded(self, node: ExpressionNode) -> object:
        try:
            return self.value(node)
        except _Failed as error:
            at = self.template.locate(error.offset)
            raise EvaluationError(error.message, at, error.hint) from None
        except RecursionError:
            at = self.template.locate(node.offset)
            raise EvaluationError("The values are nested too deeply", at) from None

    def guarded_text(self, node: ExpressionNode) -> str:
        value = self.guarded(node)
        try:
            text = to_text(value, self.budget)
            self.budget.spend(len(text))
        except (TypeError, ValueError) as error:
            at = self.template.locate(node.offset)
            raise EvaluationError(_sentence(error), at) from None
        except RecursionError:
            at = self.template.locate(node.offset)
            raise EvaluationError("The values are nested too deeply", at) from None
        return text

    def value(self, node: ExpressionNode) -> object:
        try:
            self.budget.step()
        except TooMuch as error:
            raise _Failed(str(error), node.offset) from None
        try:
            return _EVALUATE[type(node)](self, node)
        except EvaluationError as error:
            # What a scope computes when it is asked may fail without knowing who asked.
            if error.at is not None:
                raise
            raise _Failed(error.message, node.offset, error.hint) from None

    def literal(self, node: Literal) -> object:
        return node.value

    def name(self, node: Name) -> object:
        if node.name in self.locals:
            return self.locals[node.name]
        names = self.scope.names
        try:
            return names[node.name]
        except KeyError:
            hint = _nearest(node.name, [*names, *self.locals])
            if hint is None and node.name in self.scope.functions:
                hint = f"A function is called with brackets: {node.name}()."
            if hint is None:
                known = ", ".join(sorted(names))
                hint = f"Available here: {known}." if known else "No context is available here."
            raise _Failed(
                f"The '{node.name}' context is not available", node.offset, hint
            ) from None

    def trailers(self, node: Attribute | Subscript) -> object:
        chain: list[Attribute | Subscript] = []
        root: ExpressionNode = node
        while isinstance(root, Attribute | Subscript):
            chain.append(root)
            root = root.target
        value = self.value(root)
        for step in reversed(chain):
            if type(step) is Attribute:
                value = self.attribute(value, step.name, step.offset)
            else:
                value = self.item(value, self.value(step.key), step.offset)  # type: ignore[union-attr]
        return value

    def attribute(self, value: object, name: str, offset: int) -> object:
        if isinstance(value, Record):
            fields = type(value).FIELDS
            if name in fields:
                return getattr(value, name)
            hint = _nearest(name, fields) or f"It has: {', '.join(sorted(fields))}."
            raise _Failed(f"No attribute '{name}'", offset, hint)
        if isinstance(value, Mapping):
            try:
                return value[name]
            except KeyError:
                raise _Failed(f"No attribute '{name}'", offset, _choices(name, value)) from None
        raise _Failed(
            f"No attribute '{name}': {kind_of(value)} has no attributes to read with a dot", offset
        )

    def item(self, value: object, key: object, offset: int) -> object:
        if isinstance(value, Record) and isinstance(key, str):
            return self.attribute(value, key, offset)
        if isinstance(value, Mapping):
            try:
                return value[key]
            except KeyError:
                hint = _choices(key, value) if isinstance(key, str) else None
                raise _Failed(f"No item {self.shown(key)}", offset, hint) from None
            except TypeError:
                message = f"A mapping has no items by {kind_of(key)}"
                raise _Failed(message, offset) from None
        if isinstance(value, str | list | tuple):
            if not isinstance(key, int):
                message = (
                    f"The items of {kind_of(value)} are counted by integers, not {kind_of(key)}"
                )
                raise _Failed(message, offset)
            try:
                return value[key]
            except IndexError:
                count = len(value)
                message = (
                    f"No item {self.shown(key)}: there {'is' if count == 1 else 'are'} {count}"
                )
                raise _Failed(message, offset) from None
        hint = (
            "Use a comprehension to go over a set." if isinstance(value, set | frozenset) else None
        )
        raise _Failed(f"No items can be read from {kind_of(value)}", offset, hint)

    def shown(self, key: object) -> str:
        try:
            text = repr(key)
        except ValueError:
            return "with that key"
        return text if len(text) <= 60 else text[:57] + "..."

    def call(self, node: FunctionCall) -> object:
        function = self.scope.functions.get(node.function)
        if function is None:
            raise _Failed(
                f"{node.function}() is not available here",
                node.offset,
                _nearest(node.function, self.scope.functions),
            )
        arguments = [self.value(argument) for argument in node.arguments]
        try:
            result = function.call(self.scope, arguments)
            self.budget.spend(operators.size_of(result))
        except EvaluationError as error:
            if error.at is not None or error.argument is None:
                raise
            wrong = node.arguments[error.argument]
            raise _Failed(error.message, wrong.offset, error.hint) from None
        except (ValueError, TypeError, ArithmeticError, LookupError, OSError) as error:
            raise _Failed(_sentence(error), node.offset) from None
        return result

    def unary(self, node: Unary) -> object:
        value = self.value(node.operand)
        if node.operator == "not":
            return not value
        if not isinstance(value, int | float):
            raise _Failed(
                f"'{node.operator}' stands before numbers, not {kind_of(value)}", node.offset
            )
        return -value if node.operator == "-" else +value

    def binary(self, node: Binary) -> object:
        chain = [node]
        left = node.left
        while isinstance(left, Binary):
            chain.append(left)
            left = left.left
        value = self.value(left)
        for step in reversed(chain):
            if step.operator == "and":
                value = self.value(step.right) if value else value
            elif step.operator == "or":
                value = value if value else self.value(step.right)
            else:
                value = self.operation(step, value, self.value(step.right))
        return value

    def operation(self, node: Binary, left: object, right: object) -> object:
        try:
            self.budget.step()
            result = operators.OPERATIONS[node.operator](left, right, self.budget)
        except ZeroDivisionError:
            raise _Failed("Division by zero", node.offset) from None
        except OverflowError:
            raise _Failed("The number is too large", node.offset) from None
        except operators.Unsupported:
            raise _Failed(
                f"'{node.operator}' does not work between {kind_of(left)} and {kind_of(right)}",
                node.offset,
                operators.hint_for(node.operator, left, right),
            ) from None
        except (TypeError, ValueError, LookupError) as error:
            raise _Failed(_sentence(error), node.offset) from None
        return result

    def conditional(self, node: Conditional) -> object:
        return self.value(node.then if self.value(node.condition) else node.otherwise)

    def list(self, node: ListNode) -> object:
        return [self.value(item) for item in node.items]

    def dictionary(self, node: DictNode) -> object:
        result: dict[object, object] = {}
        for key_node, value_node in node.items:
            key = self.value(key_node)
            if not isinstance(key, str | int | float | None | PurePath):
                raise _Failed(f"{kind_of(key).capitalize()} cannot be a key", key_node.offset)
            result[key] = self.value(value_node)
        return result

    def comprehension(self, node: Comprehension) -> object:
        source = self.value(node.source)
        values: Sequence[object]
        if isinstance(source, set | frozenset):
            values = ordered(source)
        elif isinstance(source, Mapping):
            values = list(source)
        elif isinstance(source, str | list | tuple):
            values = source
        else:
            raise _Failed(f"There is nothing to go over in {kind_of(source)}", node.source.offset)
        outer = self.locals
        result: list[object] = []
        try:
            for value in values:
                self.locals = {**outer, node.variable: value}
                if node.condition is None or self.value(node.condition):
                    result.append(self.value(node.element))
                    self.budget.spend(16)
        except TooMuch as error:
            raise _Failed(str(error), node.offset) from None
        finally:
            self.locals = outer
        return result


_EVALUATE: dict[type[ExpressionNode], Callable[[_Evaluation, Any], object]] = {
    Literal: _Evaluation.literal,
    Name: _Evaluation.name,
    Attribute: _Evaluation.trailers,
    Subscript: _Evaluation.trailers,
    FunctionCall: _Evaluation.call,
    Unary: _Evaluation.unary,
    Binary: _Evaluation.binary,
    Conditional: _Evaluation.conditional,
    ListNode: _Evaluation.list,
    DictNode: _Evaluation.dictionary,
    Comprehension: _Evaluation.comprehension,
}


def _choices(name: str, known: Mapping[Any, object]) -> str | None:
    names = [key for key in known if isinstance(key, str)]
    hint = _nearest(name, names) if known else "There is nothing in it."
    if hint is None and 0 < len(names) <= 10:
        hint = f"It has: {', '.join(names)}."
    return hint


def _nearest(word: str, known: Any) -> str | None:
    from neuro.domain.problems import nearest

    return nearest(word[:100], [name for name in known if len(name) <= 100][:1000])


def _sentence(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if not text:
        return type(error).__name__
    # A function's name stays as it is written.
    return text if "(" in text.split(" ", 1)[0] else text[0].upper() + text[1:]
