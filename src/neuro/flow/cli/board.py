"""A watched bake: its state, and the lines that show it. Nothing here prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from msgspec import structs

from neuro.domain.bakes import Attempt, Bake, BakeEvent, Task, TaskStatus
from neuro.domain.printable import display_width
from neuro.flow.batch.layers import in_order, is_call
from neuro.flow.batch.wording import failure_of, is_forgiven
from neuro.flow.cli.bake_looks import (
    COLORS,
    SIGNS,
    WAITING,
    WAITING_SIGN,
    called,
    finished_at,
    how_long,
    outputs_line,
    started_at,
    took,
)

if TYPE_CHECKING:
    from neuro.flow.cli.thin_table import Paint

# Which lines stay where not all fit; then come those that ended last, then those that are next.
_WANTED = (TaskStatus.FAILED, TaskStatus.RUNNING, TaskStatus.PENDING)
_LONGEST_BAR, _SHORTEST_BAR = 30, 8
# The widths of columns, with the two spaces before each.
_STATUS, _TIME, _SHORTEST_MESSAGE = 11, 9, 10
_SHORTEST_NAME, _BESIDE_NAME = 8, 4 + _STATUS + _TIME
_DIM = "bright_black"


class Board:
    """The bake's tasks as its events describe them."""

    def __init__(self, bake: Bake, attempt: Attempt) -> None:
        self.bake = bake
        self.attempt = attempt
        self.ahead: Sequence[str] = ()
        self.reasons: Mapping[str, str] = {}  # what pending tasks wait for
        self._synced = False
        self._tasks: dict[str, Task] = {}
        self._order: dict[str, int] = {}
        self._calls: set[str] = set()
        # The tasks that are counted and shown, without calls: in order, and by status as they
        # came to it.
        self._leaves: dict[str, Task | None] = {}
        self._groups: dict[TaskStatus | None, dict[str, None]] = {}
        self.see(bake)

    def see(self, bake: Bake) -> None:
        """Take the bake's graphs, which grow where outputs decide what there is."""
        self.bake = bake
        self._order = {node: number for number, node in enumerate(in_order(bake.graphs))}
        self._calls = {node for node in self._order if is_call(bake.graphs, node)}
        known = dict.fromkeys((*self._order, *self._tasks))
        self._leaves = {it: self._tasks.get(it) for it in known if it not in self._calls}
        self._groups = {status: {} for status in (None, *TaskStatus)}
        for task_id, task in self._leaves.items():
            self._groups[task.status if task else None][task_id] = None

    def begin(self) -> None:
        """Start anew: all events come again, the attempt first."""
        self._synced = False

    def take(self, event: BakeEvent) -> Task | None:
        """Note an event; returns its task where the status or the text to show is new."""
        if event.attempt is not None and event.attempt.number == self.attempt.number:
            self.attempt = event.attempt
        if event.ahead is not None:
            self.ahead = event.ahead
        self._synced |= event.synced
        return self._note(event.task) if event.task else None

    def _note(self, task: Task) -> Task | None:
        task_id = task.yaml_id
        if task.status.is_finished and task_id in self._calls:
            # Tasks inside a call that was skipped, or failed at once, have no events.
            for inner in self.bake.graphs[task_id]:
                if inner not in self._tasks:
                    skipped = structs.replace(task.statuses[-1], status=TaskStatus.SKIPPED)
                    self._note(
                        structs.replace(task, yaml_id=inner, statuses=[skipped], message=None)
                    )
        before = self._tasks.get(task_id)
        self._tasks[task_id] = task
        if task_id not in self._calls:
            self._leaves[task_id] = task
        if before is not None and before.status is task.status:
            # Such as why another try follows.
            return task if task.message and task.message != before.message else None
        if task_id not in self._calls:
            self._groups[before.status if before else None].pop(task_id, None)
            self._groups[task.status][task_id] = None
        return task

    def is_call(self, task_id: str) -> bool:
        """Whether a node calls others: it is in no line of the table."""
        return task_id in self._calls

    def knows(self, task_id: str) -> bool:
        """Whether the graphs have this task."""
        return task_id in self._order

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended, and all that was before it is known."""
        return self._synced and self.attempt.result.is_finished

    @property
    def is_settled(self) -> bool:
        """Whether no task is under way."""
        return not (self._groups[TaskStatus.RUNNING] or self._groups[TaskStatus.PENDING])

    @property
    def is_waiting(self) -> bool:
        """Whether a task has a job that has not started."""
        return bool(self._groups[TaskStatus.PENDING])

    @property
    def tasks(self) -> Sequence[Task]:
        """All tasks that events named."""
        return [*self._tasks.values()]

    @property
    def failed(self) -> list[Task]:
        """The tasks that failed by themselves: a call fails because of one in it.

        Tasks with continue_on_error come last: the bake did not fail because of them.
        """
        failed = [it for it in self._tasks.values() if it.status is TaskStatus.FAILED]
        alone = [it for it in failed if not self._only_repeats(it)]

        def key(task: Task) -> tuple[bool, int]:
            return is_forgiven(task.message), self._order.get(task.yaml_id, len(self._order))

        return sorted(alone, key=key)

    def _only_repeats(self, call: Task) -> bool:
        """Whether a call's message, if any, only names the task in it that failed."""
        inner = self.bake.graphs.get(call.yaml_id)
        if not inner:
            return False
        said = call.message
        return not said or any(said.startswith(failure_of(task_id)) for task_id in inner)

    @property
    def _done(self) -> int:
        return sum(len(self._groups[status]) for status in TaskStatus if status.is_finished)

    def summary(self) -> str:
        """``12/60 done · 3 running · 1 failed``."""
        words = [f"{self._done}/{len(self._leaves)} done"]
        for status in (TaskStatus.RUNNING, TaskStatus.FAILED):
            if self._groups[status]:
                words.append(f"{len(self._groups[status])} {status.value}")
        return " · ".join(words)

    def lines(self, now: datetime, paint: Paint, *, width: int, height: int) -> list[str]:
        """A title, the tasks, as many as fit, and a bar; no line is wider than ``width``."""
        attempt = self.attempt
        number = f" · attempt #{attempt.number}" if attempt.number > 1 else ""
        title = f"Bake {called(self.bake)}{number} · "
        head = _cut(title, width - 9) + paint(attempt.result.value, COLORS[attempt.result])
        lines = [head]
        if self.ahead and not attempt.result.is_finished:
            lines.append(_cut(f"  {waits_for(self.ahead)}", width))
        # One line is left for the cursor, and one for the tasks that are not shown.
        room = max(height - len(lines) - 3, 1)
        shown = self._most_wanted(room)
        lines += self._table(shown, now, paint, width)
        if len(shown) < len(self._leaves):
            lines.append(_cut(self._left_out(shown), width))
        lines.append(self._bar(now, paint, width))
        return lines

    def _most_wanted(self, room: int) -> list[str]:
        """As many tasks as there is room for, in their order."""
        if len(self._leaves) <= room:
            return [*self._leaves]
        found: list[str] = []
        for status in _WANTED:
            found += islice(self._groups[status], room - len(found))
        ended = [status for status in TaskStatus if status.is_finished and status not in _WANTED]
        last = [it for status in ended for it in islice(reversed(self._groups[status]), room)]
        last.sort(key=self._ended_at, reverse=True)
        found += last[: room - len(found)]
        found += islice(self._groups[None], room - len(found))
        return sorted(found, key=lambda it: self._order.get(it, len(self._order)))

    def _ended_at(self, task_id: str) -> float:
        ended = finished_at(self._tasks[task_id])
        return ended.timestamp() if ended else 0.0

    def _left_out(self, shown: Sequence[str]) -> str:
        counts = {status: len(group) for status, group in self._groups.items()}
        for task_id in shown:
            task = self._leaves[task_id]
            counts[task.status if task else None] -= 1
        words = ", ".join(
            f"{count} {status.value if status else WAITING}"
            for status, count in sorted(counts.items(), key=lambda it: -it[1])
            if count
        )
        return f"  … {len(self._leaves) - len(shown)} more: {words}"

    def _table(
        self, shown: Sequence[str], now: datetime, paint: Paint, width: int
    ) -> Iterator[str]:
        name_width = max((display_width(task_id) for task_id in shown), default=0)
        name_width = min(name_width, max(width - _BESIDE_NAME, _SHORTEST_NAME))
        for task_id in shown:
            task = self._leaves[task_id]
            status, fg = (task.status, COLORS[task.status]) if task else (None, _DIM)
            name = _cut(task_id, name_width)
            line = f"  {paint(SIGNS[status] if status else WAITING_SIGN, fg)} {name}"
            left = width - 4 - name_width
            if left >= _STATUS:
                word = paint(f"{status.value if status else WAITING:<9}", fg)
                line += f"{' ' * (name_width - display_width(name))}  {word}"
                left -= _STATUS
            if left >= _TIME:
                line += f"  {_time(task, now):<7}"
                left -= _TIME
            said = task.message or self.reasons.get(task_id) if task else None
            told = _one_line(said) if said else ""
            if task and task.outputs and not told:
                told = outputs_line(task.outputs)
            if told and left >= _SHORTEST_MESSAGE:
                line += f"  {_cut(told, left - 2)}"
            yield line.rstrip()

    def _bar(self, now: datetime, paint: Paint, width: int) -> str:
        done, total = self._done, max(len(self._leaves), 1)
        ended = finished_time(self.attempt, self._tasks.values()) if self.is_settled else None
        ended = ended or now  # Of a bake that is cancelled, tasks are still being stopped.
        text = f"{self.summary()} · {how_long(ended - self.attempt.created_at)}"
        size = min(_LONGEST_BAR, width - display_width(text) - 4)
        if size < _SHORTEST_BAR:
            return _cut(f"  {text}", width)
        filled = size * done // total
        fg = "red" if self._groups[TaskStatus.FAILED] else "green" if done == total else "blue"
        if self.attempt.result is TaskStatus.SUCCEEDED:
            fg = "green"  # What failed was allowed to.
        return f"  {paint('━' * filled, fg)}{paint('─' * (size - filled), _DIM)} {text}"


def finished_time(attempt: Attempt, tasks: Iterable[Task]) -> datetime | None:
    """When an attempt ended: with its last task, as it has no time of its own."""
    if not attempt.result.is_finished:
        return None
    ends = [step.created_at for task in tasks for step in task.statuses[-1:]]
    return max(ends, default=None)


def change_line(task: Task, now: datetime) -> str:
    """A task's new status, for those who read lines: ``16:03:12 train: succeeded in 2.4s``."""
    moment = task.statuses[-1].created_at if task.statuses else now
    said = task.status.value
    begun, ended = started_at(task), finished_at(task)
    if begun and ended:
        said += f" in {how_long(ended - begun)}"
    if task.message:
        said += f": {_one_line(task.message)}"
    if task.outputs and task.status.is_finished:
        said += f"; outputs: {outputs_line(task.outputs)}"
    return f"{moment.astimezone(now.tzinfo):%H:%M:%S} {task.yaml_id}: {said}"


def _time(task: Task | None, now: datetime) -> str:
    duration = took(task, now) if task else None
    return "" if duration is None else how_long(duration)


def waits_for(ahead: Sequence[str]) -> str:
    """The sentence about a bake whose concurrency group has others before it."""
    first, more = ahead[0], len(ahead) - 1
    others = f" and {more} more" if more else ""
    return f"waits for bake {first}{others} of the same concurrency group"


def _one_line(text: str) -> str:
    """A message in one line; of a problem in a file its place, not what stands there."""
    message, mark, excerpt = text.partition('\n  in "')
    place = excerpt.partition("\n")[0]
    return " ".join(f"{message}{mark}{place}".split())


def _cut(text: str, width: int) -> str:
    """A string that is not wider than ``width``."""
    if display_width(text) <= width:
        return text
    cut, used = "", 0
    for letter in text:
        used += display_width(letter)
        if used > width - 1:
            break
        cut += letter
    return cut + "…" if width > 0 else ""
