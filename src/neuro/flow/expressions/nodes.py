"""An expression once it has been read: a tree of frozen nodes.

Every node knows an offset in the parsed text of its scalar: the character to show when it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from neuro.domain.problems import Position

# From an offset in the parsed text of a scalar to the position in the file.
Locate: TypeAlias = "Callable[[int], Position]"


class ExpressionNode(msgspec.Struct, frozen=True):
    """A part of an expression, and where it stands."""

    offset: int


class Literal(ExpressionNode, frozen=True):
    """A number, a string, `True`, `False` or `None`."""

    value: object


class Name(ExpressionNode, frozen=True):
    """A context, or the name that a comprehension introduced."""

    name: str


class Attribute(ExpressionNode, frozen=True):
    """`target.name`; stands at the name after the dot."""

    target: ExpressionNode
    name: str


class Subscript(ExpressionNode, frozen=True):
    """`target[key]`; stands at the key."""

    target: ExpressionNode
    key: ExpressionNode


class FunctionCall(ExpressionNode, frozen=True):
    """`function(arguments)`; stands at the function's name."""

    function: str
    arguments: tuple[ExpressionNode, ...]


class Unary(ExpressionNode, frozen=True):
    """`-x`, `+x` or `not x`."""

    operator: str
    operand: ExpressionNode


class Binary(ExpressionNode, frozen=True):
    """Two operands; stands at the operator."""

    operator: str
    left: ExpressionNode
    right: ExpressionNode


class Conditional(ExpressionNode, frozen=True):
    """`then if condition else otherwise`; stands at the `if`."""

    then: ExpressionNode
    condition: ExpressionNode
    otherwise: ExpressionNode


class ListNode(ExpressionNode, frozen=True):
    """`[a, b]`."""

    items: tuple[ExpressionNode, ...]


class Comprehension(ExpressionNode, frozen=True):
    """`[element for variable in source if condition]`."""

    element: ExpressionNode
    variable: str
    source: ExpressionNode
    condition: ExpressionNode | None


class DictNode(ExpressionNode, frozen=True):
    """`{key: value}`."""

    items: tuple[tuple[ExpressionNode, ExpressionNode], ...]


class Template(msgspec.Struct, frozen=True):
    """A string with expressions in it; literal text and expressions in their order."""

    parts: tuple[str | ExpressionNode, ...]
    locate: Locate

    @property
    def single(self) -> ExpressionNode | None:
        """The one expression that is all there is: its value keeps its type."""
        if len(self.parts) == 1 and isinstance(self.parts[0], ExpressionNode):
            return self.parts[0]
        return None


def children(node: ExpressionNode) -> Iterator[ExpressionNode]:
    """The nodes directly below one, in the order of the text."""
    match node:
        case Attribute(target=target):
            yield target
        case Subscript(target=target, key=key):
            yield target
            yield key
        case FunctionCall(arguments=items) | ListNode(items=items):
            yield from items
        case Unary(operand=operand):
            yield operand
        case Binary(left=left, right=right):
            yield left
            yield right
        case Conditional(then=then, condition=condition, otherwise=otherwise):
            yield then
            yield condition
            yield otherwise
        case Comprehension(element=element, source=source, condition=filter_):
            yield element
            yield source
            if filter_ is not None:
                yield filter_
        case DictNode(items=pairs):
            for key, value in pairs:
                yield key
                yield value


def calls(template: Template) -> Iterator[FunctionCall]:
    """Every function call in a template."""
    stack = [part for part in reversed(template.parts) if isinstance(part, ExpressionNode)]
    while stack:
        node = stack.pop()
        if isinstance(node, FunctionCall):
            yield node
        stack.extend(reversed(tuple(children(node))))


def references(template: Template) -> Iterator[tuple[tuple[str, ...], Position]]:
    """The dotted names that a template reads, as far as their keys are constant.

    `volumes.code.mount` and `volumes['code'].mount` are both `("volumes", "code", "mount")`; a
    computed key ends the name, and is looked through for names of its own. What a comprehension
    names is not a context, and is left out. The position is that of the first name.
    """
    nothing: frozenset[str] = frozenset()
    stack = [
        (part, nothing) for part in reversed(template.parts) if isinstance(part, ExpressionNode)
    ]
    while stack:
        node, local = stack.pop()
        path: list[str] = []
        below: list[tuple[ExpressionNode, frozenset[str]]] = []
        root = node
        while isinstance(root, Attribute | Subscript):
            if isinstance(root, Attribute):
                path.append(root.name)
            elif isinstance(root.key, Literal) and isinstance(root.key.value, str):
                path.append(root.key.value)
            else:
                path.clear()
                below.append((root.key, local))
            root = root.target
        if isinstance(root, Name):
            if root.name not in local:
                yield (root.name, *reversed(path)), template.locate(root.offset)
        elif isinstance(root, Comprehension):
            inner = local | {root.variable}
            if root.condition is not None:
                below.append((root.condition, inner))
            below.append((root.source, local))
            below.append((root.element, inner))
        else:
            below.extend((child, local) for child in reversed(tuple(children(root))))
        stack.extend(below)
