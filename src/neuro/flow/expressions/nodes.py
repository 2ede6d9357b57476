"""What an expression is once it has been read: a tree of frozen nodes.

Every node knows an offset in the parsed text of its scalar: the character to show when it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from neuro.flow.source import Position

# From an offset in the parsed text of a scalar to the position in the file.
Locate: TypeAlias = "Callable[[int], Position]"


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression, and where it stands."""

    offset: int


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, a text, `True`, `False` or `None`."""

    value: object


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A context, or the name that a comprehension introduced."""

    name: str


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """`target.name`; stands at the name after the dot."""

    target: Node
    name: str


@dataclass(frozen=True, slots=True)
class Item(Node):
    """`target[key]`; stands at the key."""

    target: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`function(arguments)`; stands at the function's name."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x`, `+x` or `not x`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Two operands; stands at the operator."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Conditional(Node):
    """`then if condition else otherwise`; stands at the `if`."""

    then: Node
    condition: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class ListNode(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Node):
    """`[element for variable in source if condition]`."""

    element: Node
    variable: str
    source: Node
    condition: Node | None


@dataclass(frozen=True, slots=True)
class DictNode(Node):
    """`{key: value}`."""

    items: tuple[tuple[Node, Node], ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A text with expressions in it; literal text and expressions in their order."""

    parts: tuple[str | Node, ...]
    locate: Locate

    @property
    def single(self) -> Node | None:
        """The one expression that is all there is: its value keeps its type."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Node):
            return self.parts[0]
        return None


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below one, in the order of the text."""
    match node:
        case Attribute(target=target):
            yield target
        case Item(target=target, key=key):
            yield target
            yield key
        case Call(arguments=items) | ListNode(items=items):
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


def calls(template: Template) -> Iterator[Call]:
    """Every function call in a template."""
    stack = [part for part in reversed(template.parts) if isinstance(part, Node)]
    while stack:
        node = stack.pop()
        if isinstance(node, Call):
            yield node
        stack.extend(reversed(tuple(children(node))))


def references(template: Template) -> Iterator[tuple[tuple[str, ...], Position]]:
    """The dotted names that a template reads, as far as their keys are constant.

    `volumes.code.mount` and `volumes['code'].mount` are both `("volumes", "code", "mount")`; a
    computed key ends the name, and is looked through for names of its own. What a comprehension
    names is not a context, and is left out. The position is that of the first name.
    """
    nothing: frozenset[str] = frozenset()
    stack = [(part, nothing) for part in reversed(template.parts) if isinstance(part, Node)]
    while stack:
        node, local = stack.pop()
        path: list[str] = []
        below: list[tuple[Node, frozenset[str]]] = []
        root = node
        while isinstance(root, Attribute | Item):
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
