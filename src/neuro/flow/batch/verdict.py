"""How a whole bake ends, and why. Pure."""

from __future__ import annotations

from neuro.domain.bakes import TaskStatus
from neuro.flow.batch.instructions import Finish
from neuro.flow.batch.items import Item, Scope
from neuro.flow.batch.wording import failure_of


class Verdict:
    """The events so far that decide it: the first of each kind gives the reason."""

    def __init__(self) -> None:
        self._is_cancelled = False
        self._message: str | None = None
        self._first_bad: str | None = None
        self._first_cancelled: str | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody, or the bake's life span, has ended it."""
        return self._is_cancelled

    def cancel(self, message: str | None) -> None:
        """It is ended from outside."""
        self._is_cancelled = True
        self._message = message

    def note(self, item: Item, result: TaskStatus) -> None:
        """A node has failed, and may not, or was cancelled."""
        why = f": {item.message.splitlines()[0]}" if item.message else "."
        if result is TaskStatus.FAILED and self._first_bad is None and not item.scope.is_forgiven:
            self._first_bad = f"{failure_of(item.text)}{why}"
        elif result is TaskStatus.CANCELLED and self._first_cancelled is None and item.message:
            self._first_cancelled = f"Task {item.text} was cancelled{why}"

    def finish(self, root: Scope) -> Finish:
        """What to say when nothing is left to do."""
        if self._is_cancelled:
            return Finish(TaskStatus.CANCELLED, self._message)
        if root.failed:
            return Finish(TaskStatus.FAILED, self._first_bad)
        result = TaskStatus.CANCELLED if root.cancelled else TaskStatus.SUCCEEDED
        return Finish(result, self._first_cancelled)
