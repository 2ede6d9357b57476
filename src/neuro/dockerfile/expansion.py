"""Variables in a word, expanded as BuildKit does it: ``$x``, ``${x:-y}``, ``${x#pattern}``, more.

The rules are the shell's, with differences that existing Dockerfiles rely on: a variable that is
not set is empty, quotes disappear, and a pattern knows ``*`` and ``?`` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from neuro.dockerfile.lines import SPACES
from neuro.dockerfile.substitution import (
    Budget,
    InvalidPattern,
    replace,
    without_prefix,
    without_suffix,
)

# Of a value, so that a variable that doubles itself line by line ends with a sentence.
MAX_EXPANDED = 1024 * 1024
_MAX_DEPTH = 50
_SPECIAL = "@*#?-$!0"
_GAP = re.compile(f"[{re.escape(SPACES)}]+")


class ExpansionError(Exception):
    """What is wrong with a word; ``offset`` is where in it."""

    def __init__(self, message: str, offset: int, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint
        self.work = 0  # as of ``Expanded``


class Style(msgspec.Struct, frozen=True):
    """What an expansion leaves as it is."""

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    plain_quotes: bool = False
    """Quotes are letters like others, as in a here-document."""
    keep_unset: bool = False


_PLAIN = Style()


class Expanded(msgspec.Struct):
    """The word, what it splits into, and which names it asked for."""

    text: str
    words: list[str]
    used: set[str] = set()
    unset: set[str] = set()
    work: int = 0
    """Places of values that patterns looked at."""


def expand(word: str, variables: Mapping[str, str], style: Style = _PLAIN) -> Expanded:
    """Expand all variables of a word. Raises ExpansionError.

    >>> expand("${name:-world}/$x", {"x": "1"}).text
    'world/1'
    """
    reader = _Reader(word, variables, style)
    try:
        text, words = reader.until("", raw_escapes=style.raw_escapes, is_pattern=False)
    except ExpansionError as wrong:
        wrong.work = reader.budget.spent
        raise
    return Expanded(text, words, reader.used, reader.unset, reader.budget.spent)


class _Words:
    """Text that is split at the spaces that stand outside of quotes."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        first, *others = _GAP.split(text)
        self.add_raw(first)
        for word in others:
            self.finish()
            self.add_raw(word)

    def add_raw(self, text: str) -> None:
        if text:
            self._parts.append(text)

    def finish(self) -> list[str]:
        if self._parts:
            self.done.append("".join(self._parts))
            self._parts = []
        return self.done


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, str], style: Style) -> None:
        self.text = text
        self.pos = 0
        self.variables = variables
        self.style = style
        self.raw_escapes = style.raw_escapes
        self.used: set[str] = set()
        self.unset: set[str] = set()
        self.budget = Budget()
        self._ends: dict[str, re.Pattern[str]] = {}
        self._depth = 0
        self._length = 0

    def _peek(self) -> str:
        return self.text[self.pos : self.pos + 1]

    def _take(self) -> str:
        char = self._peek()
        self.pos += 1
        return char

    def _wrong(self, message: str, at: int, hint: str | None = None) -> ExpansionError:
        return ExpansionError(message, min(at, max(len(self.text) - 1, 0)), hint)

    def until(self, stop: str, *, raw_escapes: bool, is_pattern: bool) -> tuple[str, list[str]]:
        """Everything up to ``stop``, or to the end where ``stop`` is empty."""
        began = self.pos
        before, self.raw_escapes = self.raw_escapes, raw_escapes
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._wrong("Substitutions are nested too deeply.", began)
        try:
            return self._until(stop, is_pattern, began)
        finally:
            self._depth -= 1
            self.raw_escapes = before

    def _until(self, stop: str, is_pattern: bool, began: int) -> tuple[str, list[str]]:
        parts: list[str] = []
        words = _Words()
        while char := self._peek():
            if char == stop:
                self.pos += 1
                return "".join(parts), words.finish()
            if char == "$":
                value = self._dollar()
                words.add(value)
            elif char == "<":
                value = self._angle()
                words.add_raw(value)
            elif char in "'\"" and not self.style.plain_quotes:
                quoted = self._single if char == "'" else self._double
                value = quoted(is_pattern)
                words.add_raw(value)
            elif char == self.style.escape:
                self.pos += 1
                value = char if self.raw_escapes else ""
                value += self._take()
                words.add_raw(value)
            else:
                value = self._plain(stop)
                words.add(value)
            self._length += len(value)
            if self._length > MAX_EXPANDED:
                raise self._wrong("This becomes longer than 1 MiB when it is expanded.", began)
            parts.append(value)
        if stop:
            raise self._wrong(f"A '{stop}' is missing.", began, "Close the substitution.")
        return "".join(parts), words.finish()

    def _plain(self, stop: str) -> str:
        """Everything up to the next letter that may mean something."""
        began = self.pos
        ends = self._ends.get(stop)
        if ends is None:
            letters = re.escape(f"$<'\"{self.style.escape}{stop}")
            ends = self._ends[stop] = re.compile(f"[{letters}]")
        # The first letter is plain here, whatever it is elsewhere.
        found = ends.search(self.text, began + 1)
        self.pos = found.start() if found else len(self.text)
        return self.text[began : self.pos]

    def _single(self, is_pattern: bool) -> str:
        began = self.pos
        end = self.text.find("'", began + 1)
        if end < 0:
            raise self._wrong("This single quote is not closed.", began, "Add a '.")
        inner = self.text[began + 1 : end]
        self.pos = end + 1
        if is_pattern:
            inner = inner.replace(self.style.escape, self.style.escape * 2)
        return f"'{inner}'" if self.style.raw_quotes else inner

    def _double(self, is_pattern: bool) -> str:
        began = self.pos
        quote = self._take() if self.style.raw_quotes else ""
        self.pos = began + 1
        parts = [quote]
        while char := self._peek():
            if char == '"':
                self.pos += 1
                parts.append(quote)
                return "".join(parts)
            if char == "$":
                parts.append(self._dollar())
                continue
            self.pos += 1
            if char == self.style.escape:
                following = self._peek()
                if not following:
                    break
                if following in ('"', "$", self.style.escape):
                    if self.raw_escapes:
                        parts.append(char)
                    char = self._take()
                elif self.raw_escapes and (not self.style.raw_quotes or is_pattern):
                    # A pattern is read again: its escapes are doubled.
                    parts.append(char)
            parts.append(char)
        raise self._wrong("This double quote is not closed.", began, 'Add a ".')

    def _angle(self) -> str:
        """``<<`` and the spaces behind it are one with the word that follows: a here-document."""
        began = self.pos
        self.pos += 1
        if self._peek() == "<":
            self.pos += 1
            while self._peek() and self._peek() in "\t\r ":
                self.pos += 1
        return self.text[began : self.pos]

    def _name(self) -> str:
        began = self.pos
        first = self._peek()
        if first.isdecimal():
            while self._peek().isdecimal():
                self.pos += 1
        elif first and first in _SPECIAL:
            self.pos += 1
        else:
            while (char := self._peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self.pos += 1
        return self.text[began : self.pos]

    def _value(self, name: str) -> str | None:
        value = self.variables.get(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _dollar(self) -> str:
        began = self.pos
        self.pos += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            return f"${name}" if value is None and self.style.keep_unset else value or ""
        self.pos += 1
        if not self._peek() or self._peek() in "{}:":
            raise self._wrong(
                "This is not a substitution.", began, "Write ${NAME}, or \\$ for a $."
            )
        name = self._name()
        operator = self._take()
        if operator == "}":
            value = self._value(name)
            return f"${{{name}}}" if value is None and self.style.keep_unset else value or ""
        if operator == "/":
            return self._replaced(name, began)
        empty_is_unset = operator == ":"
        if empty_is_unset:
            operator = self._take()
        if not operator:
            raise self._wrong("A '}' is missing.", began, "Close the substitution.")
        if operator not in "+-?#%" or (empty_is_unset and operator in "#%"):
            shown = f":{operator}" if empty_is_unset else operator
            raise self._wrong(
                f"'{shown}' is not known in a substitution.",
                self.pos - 1,
                "There are :- - :+ + :? ? # ## % %% / and //.",
            )
        trims = operator in "#%"
        word, _ = self.until("}", raw_escapes=trims, is_pattern=trims)
        value = self._value(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}{':' if empty_is_unset else ''}{operator}{word}}}"
        if trims:
            return self._trimmed(operator, word, value or "", began)
        missing = value is None or (empty_is_unset and not value)
        if operator == "-":
            return word if missing else value or ""
        if operator == "+":
            return "" if missing else word
        if missing:
            state = "unset" if value is None else "empty"
            raise self._wrong(f"{name}: {word or f'is not allowed to be {state}'}", began)
        return value or ""

    def _trimmed(self, operator: str, pattern: str, value: str, began: int) -> str:
        longest = pattern.startswith(operator)
        trim = without_prefix if operator == "#" else without_suffix
        try:
            return trim(pattern[longest:], value, self.budget, longest=longest)
        except InvalidPattern as problem:
            raise self._wrong(str(problem), began) from None

    def _replaced(self, name: str, began: int) -> str:
        everywhere = self._peek() == "/"
        self.pos += everywhere
        pattern, _ = self.until("/", raw_escapes=True, is_pattern=True)
        replacement, _ = self.until("}", raw_escapes=True, is_pattern=False)
        value = self._value(name)
        if value is None and self.style.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        try:
            changed = replace(pattern, replacement, value or "", self.budget, everywhere=everywhere)
        except InvalidPattern as problem:
            raise self._wrong(str(problem), began) from None
        if len(changed) > MAX_EXPANDED:
            raise self._wrong("This becomes longer than 1 MiB when it is expanded.", began)
        return changed
