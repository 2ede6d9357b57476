"""Reads templates: literal text with expressions in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from neuro.flow.expressions.functions import SIGNATURES
from neuro.flow.expressions.lexer import CLOSERS, OPENER, Malformed, Token, tokenize
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
    Locate,
    Name,
    Subscript,
    Template,
    Unary,
)

if TYPE_CHECKING:
    from neuro.flow.problems import Report

MAX_DEPTH = 80
_CONSTANTS = {"None": None, "True": True, "False": False}
_WORDS = frozenset((*_CONSTANTS, "and", "or", "not"))
# Most expressions are a dotted name and no more: they need neither tokens nor a parser.
_DOTTED = re.compile(
    r"[ \t\r\n]*([A-Za-z][A-Za-z0-9_]*)((?:\.[A-Za-z][A-Za-z0-9_]*)*)[ \t\r\n]*(\}\}|\]\])"
)
_COMPARISON = 4
_LEVELS = {
    "or": 1,
    "and": 2,
    "==": _COMPARISON,
    "!=": _COMPARISON,
    "<": _COMPARISON,
    "<=": _COMPARISON,
    ">": _COMPARISON,
    ">=": _COMPARISON,
    "|": 5,
    "+": 6,
    "-": 6,
    "*": 7,
    "/": 7,
    "%": 7,
}
_NOT = 3


def parse_template(text: str, locate: Locate, report: Report) -> Template | str | None:
    """A string's expressions. A string without any is itself; None is one with problems reported.

    Of a string with problems, the expressions that could be read are returned if there are any:
    their names can be checked. `locate` turns an offset in the text into a position in the file.
    """
    opening = OPENER.search(text)
    if opening is None:
        return text
    parts: list[str | ExpressionNode] = []
    position = 0
    failed = False
    while opening is not None:
        if opening.start() > position:
            parts.append(text[position : opening.start()])
        dotted = _DOTTED.match(text, opening.end())
        if dotted is not None and dotted[3] == CLOSERS[opening.group()] and dotted[1] not in _WORDS:
            parts.append(_dotted_name(dotted))
            position = dotted.end()
            opening = OPENER.search(text, position)
            continue
        try:
            tokens, position = tokenize(text, opening.end(), opening.group())
        except Malformed as error:
            failed = True
            report.add(error.message, locate(error.offset), error.hint)
            position = len(text) if error.resume is None else error.resume
        else:
            try:
                parts.append(_Parser(tokens).whole())
            except Malformed as error:
                failed = True
                report.add(error.message, locate(error.offset), error.hint)
        opening = OPENER.search(text, position)
    if failed and not any(isinstance(part, ExpressionNode) for part in parts):
        return None
    if position < len(text):
        parts.append(text[position:])
    return Template(tuple(parts), locate)


def _dotted_name(match: re.Match[str]) -> ExpressionNode:
    node: ExpressionNode = Name(match.start(1), match[1])
    offset = match.end(1)
    for name in match[2].split(".")[1:]:
        offset += 1
        node = Attribute(offset, node, name)
        offset += len(name)
    return node


class _Parser:
    """Operators by precedence climbing: all of them bind to the left."""

    __slots__ = ("depth", "index", "token", "tokens")

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.index = 0
        self.token = tokens[0]
        self.depth = 0

    def advance(self) -> Token:
        token = self.token
        self.index += 1
        self.token = self.tokens[self.index]
        return token

    def whole(self) -> ExpressionNode:
        if self.token.kind == "end":
            raise Malformed("The expression is empty", self.token.offset)
        node = self.expression()
        if self.token.kind != "end":
            raise self.unexpected()
        return node

    def expression(self) -> ExpressionNode:
        return self.conditional(self.binary(1))

    def conditional(self, then: ExpressionNode) -> ExpressionNode:
        """The rest after a value that may be the first of `then if condition else otherwise`."""
        if not self.at_word("if"):
            return then
        offset = self.advance().offset
        condition = self.binary(1)
        if not self.at_word("else"):
            raise Malformed(
                "An 'if' in an expression needs an 'else'",
                offset,
                "A choice is written 'value if condition else other'.",
            )
        self.advance()
        self.enter()
        otherwise = self.expression()
        self.depth -= 1
        return Conditional(offset, then, condition, otherwise)

    def source(self) -> tuple[ExpressionNode, ExpressionNode | None]:
        """A comprehension's source and its condition: an `if` without `else` is the latter."""
        then = self.binary(1)
        if not self.at_word("if"):
            return then, None
        offset = self.advance().offset
        condition = self.binary(1)
        if not self.at_word("else"):
            return then, self.conditional(condition)
        self.advance()
        self.enter()
        otherwise, filter_ = self.source()
        self.depth -= 1
        return Conditional(offset, then, condition, otherwise), filter_

    def binary(self, lowest: int) -> ExpressionNode:
        self.enter()
        token = self.token
        left: ExpressionNode
        if token.kind == "name" and token.text == "not":
            if lowest > _NOT:
                raise Malformed("A 'not' after an operator is put in brackets", token.offset)
            self.advance()
            left = Unary(token.offset, "not", self.binary(_NOT))
        else:
            left = self.factor()
        while True:
            token = self.token
            level = _LEVELS.get(token.text, 0)
            if level < lowest or token.kind not in ("operator", "name"):
                break
            self.advance()
            left = Binary(token.offset, token.text, left, self.binary(level + 1))
        self.depth -= 1
        return left

    def factor(self) -> ExpressionNode:
        token = self.token
        if token.kind == "operator" and token.text in "+-":
            self.advance()
            self.enter()
            operand = self.factor()
            self.depth -= 1
            return Unary(token.offset, token.text, operand)
        node = self.atom()
        while self.token.kind == "punctuation":
            text = self.token.text
            if text == ".":
                self.advance()
                if self.token.kind != "name":
                    raise self.unexpected("a name")
                name = self.advance()
                node = Attribute(name.offset, node, name.text)
            elif text == "[":
                self.advance()
                offset = self.token.offset
                if self.token.text == "]":
                    raise self.unexpected("a key")
                key = self.expression()
                self.expect("]")
                node = Subscript(offset, node, key)
            elif text == "(":
                raise Malformed("Only functions can be called, by their names", self.token.offset)
            else:
                break
        return node

    def atom(self) -> ExpressionNode:
        token = self.token
        if token.kind == "literal":
            self.advance()
            return Literal(token.offset, token.value)
        if token.kind == "name":
            if token.text in ("and", "or", "not"):
                raise self.unexpected()
            self.advance()
            if token.text in _CONSTANTS:
                return Literal(token.offset, _CONSTANTS[token.text])
            if self.token.kind == "punctuation" and self.token.text == "(":
                return self.call(token)
            return Name(token.offset, token.text)
        if token.kind == "punctuation":
            if token.text == "(":
                self.advance()
                node = self.expression()
                self.expect(")")
                return node
            if token.text == "[":
                return self.list()
            if token.text == "{":
                return self.dictionary()
        raise self.unexpected()

    def call(self, name: Token) -> ExpressionNode:
        self.advance()
        arguments: list[ExpressionNode] = []
        if not self.at(")"):
            arguments.append(self.expression())
            while self.at(","):
                self.advance()
                arguments.append(self.expression())
        self.expect(")")
        check_arity(name.text, len(arguments), name.offset)
        return FunctionCall(name.offset, name.text, tuple(arguments))

    def list(self) -> ExpressionNode:
        offset = self.advance().offset
        items: list[ExpressionNode] = []
        while not self.at("]"):
            items.append(self.expression())
            if len(items) == 1 and self.at_word("for"):
                return self.comprehension(offset, items[0])
            if not self.at(","):
                break
            self.advance()
        self.expect("]")
        return ListNode(offset, tuple(items))

    def comprehension(self, offset: int, element: ExpressionNode) -> ExpressionNode:
        self.advance()
        if self.token.kind != "name" or self.token.text in _CONSTANTS:
            raise self.unexpected("a name")
        variable = self.advance().text
        if not self.at_word("in"):
            raise self.unexpected("'in'")
        self.advance()
        source, condition = self.source()
        if self.at_word("for"):
            raise Malformed("A comprehension has one 'for'", self.token.offset)
        self.expect("]")
        return Comprehension(offset, element, variable, source, condition)

    def dictionary(self) -> ExpressionNode:
        offset = self.advance().offset
        items: list[tuple[ExpressionNode, ExpressionNode]] = []
        while not self.at("}"):
            key = self.expression()
            self.expect(":")
            items.append((key, self.expression()))
            if not self.at(","):
                break
            self.advance()
        self.expect("}")
        return DictNode(offset, tuple(items))

    def at(self, text: str) -> bool:
        return self.token.kind == "punctuation" and self.token.text == text

    def at_word(self, word: str) -> bool:
        return self.token.kind == "name" and self.token.text == word

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Malformed("The expression is nested too deeply", self.token.offset)

    def expect(self, text: str) -> None:
        if not self.at(text):
            raise self.unexpected(f"'{text}'")
        self.advance()

    def unexpected(self, wanted: str | None = None) -> Malformed:
        token = self.token
        if token.kind == "end":
            message = f"The expression ends where {wanted or 'a value'} should follow"
            return Malformed(message, token.offset)
        shown = token.text if len(token.text) <= 40 else token.text[:37] + "..."
        expected = f"; {wanted} should stand here" if wanted else ""
        hint = None
        if token.text in ("in", "is", "lambda") and token.kind == "name":
            hint = f"Expressions have no '{token.text}'."
        elif token.kind == "literal" and self.index and isinstance(token.value, str):
            if isinstance(self.tokens[self.index - 1].value, str):
                hint = "Strings are joined by '+'."
        elif token.text == "%":
            hint = "'%' stands between two values."
        return Malformed(f"'{shown}' is not expected here{expected}", token.offset, hint)


def check_arity(name: str, count: int, offset: int) -> None:
    """Refuse a call of a function that is not known, or with a wrong number of arguments."""
    if name not in SIGNATURES:
        from neuro.domain.problems import nearest

        raise Malformed(f"There is no function '{name}'", offset, nearest(name, SIGNATURES))
    fewest, most = SIGNATURES[name]
    if count < fewest or (most is not None and count > most):
        raise Malformed(f"{name}() takes {_amount(fewest, most)}, not {count}", offset)


def _amount(fewest: int, most: int | None) -> str:
    if most is None:
        return f"at least {fewest} argument{'' if fewest == 1 else 's'}"
    if fewest == most:
        return "no arguments" if not most else f"{most} argument{'' if most == 1 else 's'}"
    return f"{fewest} {'or' if most == fewest + 1 else 'to'} {most} arguments"
