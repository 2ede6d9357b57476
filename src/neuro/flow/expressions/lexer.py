"""Cuts one expression into tokens, up to the delimiter that closes it."""

from __future__ import annotations

import re
from typing import NamedTuple

CLOSERS = {"${{": "}}", "$[[": "]]"}
OPENER = re.compile(r"\$\{\{|\$\[\[")
MAX_EXPRESSION = 65_536

_BRACKETS = {")": "(", "]": "[", "}": "{"}
_TOKEN = re.compile(
    r"""[ \t\r\n\f\v]+
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<punctuation>[.,:()\[\]{}](?!(?<=\.)[0-9]))
    |(?P<real>(?:[0-9][0-9_]*\.(?:[0-9][0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_])
        |[0-9][0-9_]*[eE][+-]?[0-9]+(?![A-Za-z0-9_]))
    |(?P<integer>0[xX][0-9a-fA-F_]+(?![A-Za-z0-9_])|0[oO][0-7_]+(?![A-Za-z0-9_])
        |0[bB][01_]+(?![A-Za-z0-9_])|[0-9][0-9_]*(?![A-Za-z0-9_]))
    |(?P<string>'(?:[^'\\\r\n]|\\[^\r\n])*'|"(?:[^"\\\r\n]|\\[^\r\n])*")
    |(?P<foreign>===?(?<====)|//|\*\*|&&?|\|\||<>|<<|>>|\^|~|\?|;|`|@|\\|\$)
    |(?P<operator>==|!=|<=|>=|[<>|+\-*/%])
    |(?P<number>\.?[0-9][A-Za-z0-9_.]*)
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|N\{([^}]*)\}|(.))",
    re.DOTALL,
)
_SIMPLE = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
}
_HINTS = {
    "=": "Did you mean '=='?",
    "===": "Did you mean '=='?",
    "&&": "Did you mean 'and'?",
    "&": "Did you mean 'and'?",
    "||": "Did you mean 'or'?",
    "!": "Did you mean 'not'?",
    "<>": "Did you mean '!='?",
    "?": "A choice is written 'value if condition else other'.",
    "//": "There is '/', which divides, and int(), which drops the fraction.",
    "**": "There is no operator for powers.",
    "$": "Expressions do not nest: inside of one, a context is used by its name.",
}


class Malformed(Exception):
    """A mistake in an expression, and its offset in the scalar."""

    def __init__(self, message: str, offset: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint
        # Where reading the rest of the text can go on, if the lexer knows.
        self.resume: int | None = None


class Token(NamedTuple):
    kind: str  # name, punctuation, operator, literal or end
    text: str
    offset: int
    value: object = None


def tokenize(text: str, start: int, opener: str) -> tuple[list[Token], int]:
    """The tokens of the expression whose opener ended at `start`, and where its closer ends.

    A closer counts only outside brackets, so that `a[b[0]]` and `{'a': {'b': 1}}` need no spaces.
    """
    closer = CLOSERS[opener]
    try:
        return _tokenize(text, start, opener, closer)
    except Malformed as error:
        # The rest of the text is read too, so that one run tells all there is to mend.
        ends = [
            at for at in (text.find(mark, error.offset) for mark in CLOSERS.values()) if at >= 0
        ]
        if error.resume is None:
            error.resume = min(ends) + 2 if ends else len(text)
        raise


def _tokenize(text: str, start: int, opener: str, closer: str) -> tuple[list[Token], int]:
    tokens: list[Token] = []
    open_brackets: list[Token] = []
    scan = _TOKEN.match
    position = start
    end = len(text)
    while position < end:
        if not open_brackets and text.startswith(("}}", "]]"), position):
            if not text.startswith(closer, position):
                raise Malformed(
                    f"An expression opened by '{opener}' is closed by '{closer}',"
                    f" not by '{text[position : position + 2]}'",
                    position,
                )
            tokens.append(Token("end", closer, position))
            return tokens, position + 2
        match = scan(text, position)
        if match is None:
            raise _unexpected(text, position)
        kind = match.lastgroup
        if kind is not None:
            word = match.group()
            if kind == "name":
                if word[0] == "_":
                    raise Malformed(
                        f"A name starts with a letter, which '{word}' does not", position
                    )
                tokens.append(Token("name", word, position))
            elif kind == "punctuation":
                token = Token("punctuation", word, position)
                if word in "([{":
                    open_brackets.append(token)
                elif word in ")]}":
                    _close(open_brackets, token, closer)
                tokens.append(token)
            elif kind == "operator":
                tokens.append(Token("operator", word, position))
            elif kind == "string":
                tokens.append(Token("literal", word, position, _string(word, position)))
            elif kind == "integer" or kind == "real":
                tokens.append(Token("literal", word, position, _number(word, kind, position)))
            elif kind == "foreign":
                raise Malformed(
                    f"'{word}' is not an operator of expressions", position, _HINTS.get(word)
                )
            else:
                raise Malformed(f"'{word}' is not a number", position)
        position = match.end()
        if position - start > MAX_EXPRESSION:
            raise Malformed(
                f"An expression is longer than {MAX_EXPRESSION} characters", start - len(opener)
            )
    if open_brackets:
        raise _unclosed(open_brackets[-1])
    raise Malformed(f"The expression is not closed: '{closer}' is missing", start - len(opener))


def _close(open_brackets: list[Token], token: Token, closer: str) -> None:
    if not open_brackets:
        hint = f"The expression ends with '{closer}'." if token.text in closer else None
        raise Malformed(f"'{token.text}' closes nothing", token.offset, hint)
    if open_brackets[-1].text != _BRACKETS[token.text]:
        raise _unclosed(open_brackets[-1])
    open_brackets.pop()


def _unclosed(bracket: Token) -> Malformed:
    return Malformed(f"The '{bracket.text}' here is not closed", bracket.offset)


def _unexpected(text: str, position: int) -> Malformed:
    character = text[position]
    if character in "'\"":
        return Malformed("The string that starts here has no closing quote on its line", position)
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    if character.isalpha():
        return Malformed(
            f"'{shown}' cannot be part of a name: names are Latin letters, digits and '_'", position
        )
    return Malformed(f"'{shown}' does not belong in an expression", position, _HINTS.get(character))


def _number(word: str, kind: str, offset: int) -> object:
    try:
        return float(word) if kind == "real" else int(word, 0)
    except ValueError:
        if len(word) > 100:
            raise Malformed("The number is too long", offset) from None
        hint = None
        if word[0] == "0" and word.strip("0_").isdigit():
            hint = f"Did you mean '{word.lstrip('0')}'?"
        raise Malformed(f"'{word}' is not a number", offset, hint) from None


def _string(word: str, offset: int) -> str:
    body = word[1:-1]
    if "\\" not in body:
        return body

    def replace(match: re.Match[str]) -> str:
        octal, two, four, eight, name, other = match.groups()
        if other is not None:
            if other in "xuUN":
                raise Malformed(f"'\\{other}' is not a complete escape", offset + 1 + match.start())
            return _SIMPLE.get(other, "\\" + str(other))
        if name is not None:
            import unicodedata

            try:
                return unicodedata.lookup(name)
            except KeyError:
                raise Malformed(
                    f"No character is named '{name}'", offset + 1 + match.start()
                ) from None
        code = int(octal, 8) if octal else int(two or four or eight, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise Malformed(f"'{match.group()}' is not a character", offset + 1 + match.start())
        return chr(code)

    return _ESCAPE.sub(replace, body)
