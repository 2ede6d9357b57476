"""Problems with places: what is wrong, where, and what to do about it. They collect."""

from collections.abc import Iterable
from dataclasses import dataclass

from neuro.domain.printable import printable
from neuro.flow.source import Position

# Of what stands in several lines.
_KEPT = "\n\t"
_BOLD_RED = "\x1b[1;31m"
_CYAN = "\x1b[36m"
_RESET = "\x1b[0m"

# Longer lines are cut around the place: a terminal would wrap them and lose the caret.
_LONGEST_LINE = 160

MOST_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in one sentence, with the place and a hint where there are any."""

    message: str
    at: Position | None
    hint: str | None = None

    def render(self, *, color: bool = False) -> str:
        """The message, the place in one line, the source's line with a caret, and the hint."""
        red, cyan, reset = (_BOLD_RED, _CYAN, _RESET) if color else ("", "", "")
        lines = [f"{red}{printable(self.message, keep=_KEPT)}{reset}"]
        if self.at is not None:
            lines.append(
                f'  in "{printable(self.at.source.name)}", line {self.at.line},'
                f" column {self.at.column}"
            )
            excerpt = _excerpt(self.at)
            if excerpt is not None:
                text, caret = excerpt
                lines += [f"    {text}", f"    {red}{caret}{reset}"]
        if self.hint is not None:
            lines.append(f"  {cyan}{printable(self.hint, keep=_KEPT)}{reset}")
        return "\n".join(lines)


def _excerpt(at: Position) -> tuple[str, str] | None:
    line = at.source.line(at.line)
    if not line.strip():
        return None
    start = 0
    if len(line) > _LONGEST_LINE:
        start = max(0, min(at.column - 1 - _LONGEST_LINE // 2, len(line) - _LONGEST_LINE))
    shown = line[start : start + _LONGEST_LINE]
    before = shown[: max(0, at.column - 1 - start)]
    # Tabs stay tabs, so that the caret stands below its character at every tab width.
    blank = "".join("\t" if character == "\t" else " " for character in before)
    # One for one, so that the caret stays where it belongs.
    return "".join(
        char if char.isprintable() or char == "\t" else "\ufffd" for char in shown
    ), blank + "^"


class FlowError(Exception):
    """Everything that is wrong with some files."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(problem.render() for problem in self.problems)


class Report:
    """Collects problems, so that one run reports them all. It never raises by itself.

    Notes are about what is allowed and likely a mistake: nothing fails because of them.
    """

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._notes: dict[Problem, None] = {}
        self._known: set[tuple[str, str, int, int]] = set()

    @property
    def full(self) -> bool:
        """Whether there are more problems than anybody reads: the rest is not noted."""
        return len(self.problems) >= MOST_PROBLEMS

    def add(self, message: str, at: Position | None, hint: str | None = None) -> None:
        """Note a problem. The same one at the same place counts once: aliases repeat text."""
        problem = Problem(message, at, hint)
        known = (message, *_place(problem))
        if known not in self._known and not self.full:
            self._known.add(known)
            self.problems.append(problem)

    def note(self, message: str, at: Position | None, hint: str | None = None) -> None:
        """Note what is allowed, and probably not meant."""
        if len(self._notes) < MOST_PROBLEMS:
            self._notes[Problem(message, at, hint)] = None

    @property
    def notes(self) -> list[Problem]:
        """The notes by file, then by place, each once."""
        return sorted(self._notes, key=_place)

    def take(self, problems: Iterable[Problem], notes: Iterable[Problem] = ()) -> None:
        """Note the problems, and the notes, of another report."""
        for problem in problems:
            self.add(problem.message, problem.at, problem.hint)
        for one in notes:
            self.note(one.message, one.at, one.hint)

    def sorted(self) -> tuple[Problem, ...]:
        """The problems by file, then by place. Those without a place come first."""
        return tuple(sorted(self.problems, key=_place))

    def first_of_each_place(self) -> list[Problem]:
        """One problem for each place: later ones there mostly repeat the first."""
        seen: set[Position] = set()
        found: list[Problem] = []
        for problem in self.sorted():
            if problem.at is not None:
                if problem.at in seen:
                    continue
                seen.add(problem.at)
            found.append(problem)
        return found

    def raise_if_any(self) -> None:
        """Raise a FlowError with all that was noted, if anything was."""
        if self.problems:
            raise FlowError(self.sorted())


def _place(problem: Problem) -> tuple[str, int, int]:
    if problem.at is None:
        return "", 0, 0
    return problem.at.source.name, problem.at.line, problem.at.column


def nearest(word: str, known: Iterable[str]) -> str | None:
    """A hint such as "Did you mean 'image'?", when a known word is close to this one."""
    found = closest(word, known)
    return f"Did you mean '{found}'?" if found is not None else None


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is close to this one, if any is."""
    # Imported here: only a mistake needs it, and every start would pay.
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None
