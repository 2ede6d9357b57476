"""Variables while a Dockerfile is planned: arguments, the environment, and words that use them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from neuro.dockerfile.expansion import Expanded, ExpansionError, Style, expand
from neuro.dockerfile.reading import shortened
from neuro.dockerfile.tree import Arg, Heredoc, Word
from neuro.domain.problems import Position, Problem, closest

# Each change of the environment costs a copy of it: of so many letters, for each name.
_LETTERS_OF_A_NAME = 64
MAX_PLAN = 16 * 1024 * 1024
MAX_PROBLEMS = 100
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class Abandoned(Exception):
    """An instruction cannot be planned; the problem is noted."""


class Expander(msgspec.Struct):
    """Expands words, and notes what is wrong with them at their places."""

    escape: str
    problems: list[Problem]
    spent: int = 0

    def word(self, word: Word, variables: Mapping[str, str]) -> str:
        return self._expanded(word, word.text, variables, Style(escape=self.escape)).text

    def words(self, word: Word, variables: Mapping[str, str]) -> list[str]:
        return self._expanded(word, word.text, variables, Style(escape=self.escape)).words

    def heredoc(self, heredoc: Heredoc, variables: Mapping[str, str]) -> str:
        """The text of a here-document: quotes are letters in it, and the escape is a backslash."""
        if not heredoc.expand:
            return heredoc.content
        place = Word("", heredoc.at)
        return self._expanded(place, heredoc.content, variables, Style(plain_quotes=True)).text

    def spend(self, size: int, at: Position) -> None:
        """Count letters that become part of the plan. Raises Abandoned where it is too many."""
        self.spent += size
        if self.spent > MAX_PLAN:
            raise self.fail("What the variables become is more than 16 MiB in all.", at)

    def fail(self, message: str, at: Position, hint: str | None = None) -> Abandoned:
        """Note a problem. What is returned is to be raised."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(shortened(message), at, hint))
        return Abandoned()

    def _expanded(
        self, word: Word, text: str, variables: Mapping[str, str], style: Style
    ) -> Expanded:
        if self.spent > MAX_PLAN:
            raise Abandoned
        try:
            found = expand(text, variables, style)
        except ExpansionError as wrong:
            self.spent += wrong.work
            raise self._note(word, wrong) from None
        self.spend(len(found.text) + found.work, word.at)
        return found

    def _note(self, word: Word, wrong: ExpansionError) -> Abandoned:
        source, line, column = word.at
        # A word may go on in the next line: then its beginning is shown.
        fits = column + wrong.offset <= len(source.line(line))
        at = Position(source, line, column + wrong.offset) if fits and word.text else word.at
        return self.fail(wrong.message, at, wrong.hint)


class Variables(msgspec.Struct):
    """What a stage's words can use. ``env`` is in the order of the last change."""

    env: dict[str, str] = {}
    declared: list[tuple[str, str]] = []
    """The stage's ARGs, with the value that each had then."""
    _snapshot: dict[str, str] | None = None

    def set(self, name: str, value: str) -> None:
        self.env.pop(name, None)
        self.env[name] = value
        self._snapshot = None

    def snapshot(self, expander: Expander, at: Position) -> dict[str, str]:
        """The environment as it is now: the same value until it changes."""
        if self._snapshot is None:
            expander.spend(_LETTERS_OF_A_NAME * len(self.env), at)
            self._snapshot = dict(self.env)
        return self._snapshot

    def copy(self) -> Variables:
        return Variables(dict(self.env), list(self.declared))

    def arguments(self) -> dict[str, str]:
        """The ARGs with their values now, each at its first place: RUN's history has them."""
        return {name: self.env.get(name, value) for name, value in self.declared}


def global_arguments(
    automatic: Mapping[str, str],
    arguments: tuple[Arg, ...],
    given: Mapping[str, str],
    expander: Expander,
) -> dict[str, str]:
    """The arguments before the first FROM: what is given wins over what the file says."""
    known = {name: given.get(name, value) for name, value in automatic.items()}
    for instruction in arguments:
        for name, default in instruction.pairs:
            try:
                if name.text in given:
                    known[name.text] = given[name.text]
                elif default is not None:
                    known[name.text] = expander.word(default, known)
            except Abandoned:
                continue
    return known


def declare(
    instruction: Arg,
    variables: Variables,
    known: Mapping[str, str],
    given: Mapping[str, str],
    expander: Expander,
) -> str:
    """An ARG inside of a stage: what the history says of it."""
    shown = ["ARG"]
    for name, default in instruction.pairs:
        value = given.get(name.text)
        if value is None:
            if default is not None:
                value = expander.word(default, variables.env)
            else:
                value = known.get(name.text)
        if value is not None:
            variables.set(name.text, value)
        variables.declared.append((name.text, value or ""))
        shown.append(name.text if value is None else f"{name.text}={value}")
    return " ".join(shown)


def proxies(given: Mapping[str, str]) -> dict[str, str]:
    """The arguments that every RUN gets and that never count, in both spellings: proxies."""
    found = {name.lower(): value for name, value in given.items() if name.lower() in _PROXIES}
    return found | {name.upper(): value for name, value in found.items()}


def unused(given: Mapping[str, str], names: set[str]) -> list[str]:
    """What is given and no ARG asks for, each as a sentence."""
    known = names | set(proxies(given))
    found = []
    for name in given:
        if name not in known:
            near = closest(name, sorted(names))
            hint = f" Did you mean '{near}'?" if near else ""
            found.append(f"No ARG asks for '{name}'.{hint}")
    return found
