"""One instruction while it is read: its pieces, its flags, and what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NoReturn

from neuro.dockerfile.expansion import ExpansionError, Style, expand
from neuro.dockerfile.lines import SPACES, Line, Span
from neuro.dockerfile.tree import Flag, Heredoc, Word
from neuro.dockerfile.words import NotStrings, json_words, spaced_words, split_instruction
from neuro.domain.problems import Position, Problem, nearest

_HEREDOC = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)", re.DOTALL)
_LONGEST_MESSAGE = 300
_LINE_STYLE = Style(raw_quotes=True, raw_escapes=True, keep_unset=True)
_NAME_STYLE = Style(keep_unset=True)
_RAW_NAME_STYLE = Style(keep_unset=True, raw_quotes=True)


class Wrong(Exception):
    """The instruction cannot be read; the problem is noted."""


@dataclass(slots=True)
class Reading:
    """An instruction's pieces. ``problems`` and ``notes`` are those of the whole file."""

    line: Line
    escape: str
    problems: list[Problem]
    notes: list[Problem]
    name: Span = field(init=False)
    flags: list[Span] = field(init=False)
    rest: Span = field(init=False)
    heredocs: tuple[Heredoc, ...] = ()

    def __post_init__(self) -> None:
        self.name, self.flags, self.rest = split_instruction(self.line.text, self.escape)

    @property
    def keyword(self) -> str:
        return self.name.text.upper()

    @property
    def text(self) -> str:
        return self.line.text.strip(SPACES)

    @property
    def at(self) -> Position:
        return self.line.at(self.name.start)

    def word(self, span: Span) -> Word:
        return Word(span.text, self.line.at(span.start))

    def wrong(self, message: str, span: Span | None = None, hint: str | None = None) -> NoReturn:
        """Note a problem, and give the instruction up."""
        self.add(message, span, hint)
        raise Wrong

    def add(self, message: str, span: Span | None = None, hint: str | None = None) -> None:
        place = self.line.at((span or self.name).start)
        self.problems.append(Problem(shortened(message), place, hint))

    def note(self, message: str, span: Span | None = None, hint: str | None = None) -> None:
        self.notes.append(Problem(message, self.line.at((span or self.name).start), hint))

    def trigger(self) -> Reading:
        """The instruction behind ONBUILD."""
        return Reading(self.line.tail(self.rest.start), self.escape, self.problems, self.notes)

    @property
    def can_hold_heredocs(self) -> bool:
        """Whether lines that follow may belong to the instruction."""
        inner = self.trigger() if self.keyword == "ONBUILD" and self.rest.text else self
        if inner.keyword not in ("RUN", "COPY", "ADD"):
            return False
        try:
            return json_words(inner.rest) is None
        except NotStrings:
            return False

    def json(self) -> list[Span] | None:
        """The strings of the JSON form. None: the instruction is in the other form."""
        try:
            found = json_words(self.rest)
        except NotStrings:
            self.wrong(
                f"{self.keyword}'s list holds something that is not a string.",
                self.rest,
                'Put each part in double quotes: ["program", "1"].',
            )
        if found is None and self.rest.text.startswith("[") and self.rest.text.endswith("]"):
            self.note(
                f"{self.keyword}'s [...] is not a JSON list, and is taken as plain text.",
                self.rest,
                "Write each part in double quotes, with commas between.",
            )
        return found

    def words(self) -> list[Span]:
        """The arguments of an instruction that takes a list, in either form."""
        found = self.json()
        return spaced_words(self.rest) if found is None else found

    def one(self, what: str) -> Word:
        """The whole rest, where exactly one argument is due."""
        if not self.rest.text:
            self.wrong(f"{self.keyword} needs {what}.")
        return self.word(self.rest)

    def read_flags(self, known: dict[str, type], *, many: tuple[str, ...] = ()) -> Flags:
        """The flags by name: those of type bool may stand alone, ``many`` may be repeated."""
        found: dict[str, list[Flag]] = {}
        failed = False
        for span in self.flags:
            name, equals, value = span.text[2:].partition("=")
            kind = known.get(name)
            message, hint = None, None
            if kind is None:
                message = f"{self.keyword} has no flag '--{name}'."
                hint = nearest(name, known) or _listed(known)
            elif name in found and name not in many:
                message = f"The flag '--{name}' is given twice."
            elif kind is bool:
                if (equals and not value) or value.lower() not in ("", "true", "false"):
                    message = f"'--{name}' is either true or false, not '{value}'."
            elif not equals:
                message = f"The flag '--{name}' needs a value: --{name}=..."
            if message:
                self.add(message, span, hint)
                failed = True
            else:
                flag = Flag(name, value if equals else None, self.line.at(span.start))
                found.setdefault(name, []).append(flag)
        if failed:
            raise Wrong
        return Flags(found)

    def heredoc_words(self) -> list[Heredoc]:
        """The here-documents that the line asks for, still empty."""
        if "<<" not in self.line.text:
            return []
        try:
            words = expand(self.line.text, {}, _LINE_STYLE).words
        except ExpansionError:
            return []
        found = (heredoc_of(word, self.at) for word in words)
        return [one for one in found if one]


class Flags:
    """The flags that are given, by their names."""

    def __init__(self, found: dict[str, list[Flag]]) -> None:
        self._found = found

    def all(self, name: str) -> list[Flag]:
        return self._found.get(name, [])

    def text(self, name: str) -> str:
        given = self.all(name)
        return given[0].value or "" if given else ""

    def word(self, name: str) -> Word | None:
        given = self.all(name)
        return Word(given[0].value, given[0].at) if given and given[0].value else None

    def yes(self, name: str) -> bool | None:
        """None where it is not given."""
        given = self.all(name)
        return (given[0].value or "true").lower() == "true" if given else None


def shortened(message: str) -> str:
    """A message that may hold a word of the file, however long that is."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2
    return f"{message[:half]} … {message[-half:]}"


def heredoc_of(word: str, at: Position) -> Heredoc | None:
    """The here-document that a word such as ``<<-"END"`` begins, if it does."""
    found = _HEREDOC.fullmatch(word)
    if found is None or not found[3]:
        return None
    try:
        names = expand(found[3], {}, _NAME_STYLE).words
        raw = expand(found[3], {}, _RAW_NAME_STYLE).words
    except ExpansionError:
        return None
    if len(names) != 1 or len(raw) != 1:
        return None
    quotes = [sum(text.count(quote) for quote in "'\"") for text in (names[0], raw[0])]
    return Heredoc(names[0], "", quotes[0] == quotes[1], found[2] == "-", at)


def _listed(known: dict[str, type]) -> str:
    if not known:
        return "It has none."
    return "Its flags are " + ", ".join(f"--{name}" for name in sorted(known)) + "."
