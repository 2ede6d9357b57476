"""Whose turn it is: bakes of one project and concurrency group run one after the other.

In the order in which their attempts came to be known; an attempt that was told that it is its turn
never has another put before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """An unfinished attempt of a group."""

    attempt_id: str
    bake_id: str
    project_id: str
    group: str
    cancels: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """What bakes that wait for each other have in common."""
        return (self.project_id, self.group)


class AttemptTurns:
    """All unfinished attempts that belong to a group."""

    def __init__(self) -> None:
        self._by_attempt: dict[str, Turn] = {}
        # Dictionaries keep the order of arrival.
        self._places: dict[tuple[str, str], dict[str, Turn]] = {}

    def enter(self, turn: Turn) -> list[Turn]:
        """Take a place at the end; returns those ahead. Nothing changes for one that is there."""
        if turn.attempt_id not in self._by_attempt:
            self._by_attempt[turn.attempt_id] = turn
            self._places.setdefault(turn.place, {})[turn.attempt_id] = turn
        return self.ahead(turn)

    def leave(self, attempt_id: str) -> list[Turn]:
        """Give up a place; returns those behind it, for whom that is news."""
        turn = self._by_attempt.pop(attempt_id, None)
        if turn is None:
            return []
        place = self._places[turn.place]
        behind = list(_after(place, attempt_id))
        del place[attempt_id]
        if not place:
            del self._places[turn.place]
        return behind

    def of(self, attempt_id: str) -> Turn | None:
        return self._by_attempt.get(attempt_id)

    def ahead(self, turn: Turn) -> list[Turn]:
        """The attempts that come before it, in their order; never those of its own bake."""
        found = []
        for other in self._places.get(turn.place, {}).values():
            if other.attempt_id == turn.attempt_id:
                break
            if other.bake_id != turn.bake_id:
                found.append(other)
        return found


def _after(place: dict[str, Turn], attempt_id: str) -> Iterator[Turn]:
    is_behind = False
    for turn in place.values():
        if is_behind:
            yield turn
        is_behind = is_behind or turn.attempt_id == attempt_id
