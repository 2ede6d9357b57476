"""Everything that is wrong with some flow files, collected: one run reports it all."""

from collections.abc import Iterable

from neuro.domain.problems import Position, Problem

MOST_PROBLEMS = 1000


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
