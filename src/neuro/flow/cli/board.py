"""What is known of a bake that is watched, and the lines that show it. Nothing here prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neuro.cli.render.table import display_width
from neuro.domain.bakes import Attempt, Bake, BakeEvent, Task, TaskStatus
from neuro.flow.batch.layers import in_order, is_call
from neuro.flow.cli.bake_looks import (
    COLORS,
    SIGNS,
    WAITING,
    WAITING_SIGN,
    called,
    finished_at,
    how_long,
    started_at,
)

if TYPE_CHECKING:
    from neuro.flow.cli.thin_table import Paint

# Which lines stay where not all fit.
_WEIGHT = {
    TaskStatus.FAILED: 0,
    TaskStatus.RUNNING: 1,
    TaskStatus.PENDING: 2,
    TaskStatus.CANCELLED: 3,
}
_LONGEST_BAR, _SHORTEST_BAR = 30, 8
# The widths of columns, with the two spaces before each.
_STATUS, _TIME, _SHORTEST_MESSAGE = 11, 9, 10
_SHORTEST_NAME, _BESIDE_NAME = 8, 4 + _STATUS + _TIME
_DIM = "bright_black"


class Board:
    """The bake's tasks as the events told of them."""

    def __init__(self, bake: Bake, attempt: Attempt) -> None:
        self.bake = bake
        self.attempt = attempt
        self.ahead: Sequence[str] = ()
        self._synced = False
        self._tasks: dict[str, Task] = {}
        self._order: dict[str, int] = {}
        self._calls: set[str] = set()
        self.see(bake)

    def see(self, bake: Bake) -> None:
        """Take the bake's graphs, which grow where outputs decide what there is."""
        self.bake = bake
        self._order = {node: number for number, node in enumerate(in_order(bake.graphs))}
        self._calls = {node for node in self._order if is_call(bake.graphs, node)}

    def begin(self) -> None:
        """All is told once more, the attempt first."""
        self._synced = False

    def take(self, event: BakeEvent) -> Task | None:
        """Note what an event tells; the task, where its status is new."""
        if event.attempt is not None and event.attempt.number == self.attempt.number:
            self.attempt = event.attempt
        if event.ahead is not None:
            self.ahead = event.ahead
        self._synced |= event.synced
        if event.task is None:
            return None
        before = self._tasks.get(event.task.yaml_id)
        self._tasks[event.task.yaml_id] = event.task
        return event.task if before is None or before.status is not event.task.status else None

    def knows(self, task_id: str) -> bool:
        """Whether the graphs have this task."""
        return task_id in self._order

    @property
    def is_over(self) -> bool:
        """Whether the attempt has ended, and all that was before it is known."""
        return self._synced and self.attempt.result.is_finished

    @property
    def tasks(self) -> Sequence[Task]:
        """All that were told of."""
        return [*self._tasks.values()]

    @property
    def failed(self) -> list[Task]:
        """The tasks that failed by themselves: a call fails because of one in it."""
        failed = [it for it in self._tasks.values() if it.status is TaskStatus.FAILED]
        alone = [it for it in failed if it.yaml_id not in self._calls or it.message]
        return sorted(alone, key=lambda it: self._order.get(it.yaml_id, len(self._order)))

    @property
    def counts(self) -> Counter[TaskStatus | None]:
        """How many tasks there are in each status; None for those that have not begun."""
        return Counter(task.status if task else None for task in self._leaves().values())

    def _leaves(self) -> dict[str, Task | None]:
        found: dict[str, Task | None] = {
            node: self._tasks.get(node) for node in self._order if node not in self._calls
        }
        for task_id, task in self._tasks.items():
            if task_id not in self._calls:
                found[task_id] = task
        return found

    def summary(self) -> str:
        """``12/60 done · 3 running · 1 failed``."""
        counts = self.counts
        done = sum(count for status, count in counts.items() if status and status.is_finished)
        words = [f"{done}/{counts.total()} done"]
        for status in (TaskStatus.RUNNING, TaskStatus.FAILED):
            if counts[status]:
                words.append(f"{counts[status]} {status.value}")
        return " · ".join(words)

    def lines(self, now: datetime, paint: Paint, *, width: int, height: int) -> list[str]:
        """A title, the tasks, as many as fit, and a bar; no line is wider than ``width``."""
        attempt = self.attempt
        number = f" · attempt #{attempt.number}" if attempt.number > 1 else ""
        title = f"Bake {called(self.bake)}{number} · "
        head = _cut(title, width - 9) + paint(attempt.result.value, COLORS[attempt.result])
        lines = [head]
        if self.ahead and not attempt.result.is_finished:
            lines.append(_cut(_waits_for(self.ahead), width))
        # One line is left for the cursor, and one for what is not shown.
        room = max(height - len(lines) - 3, 1)
        leaves = self._leaves()
        shown = [*leaves.items()]
        if len(shown) > room:
            shown = self._most_wanted(leaves, room)
        lines += self._table(shown, now, paint, width)
        if len(shown) < len(leaves):
            lines.append(_cut(_left_out(leaves, {task_id for task_id, _ in shown}), width))
        lines.append(self._bar(now, paint, width))
        return lines

    def _most_wanted(
        self, leaves: dict[str, Task | None], room: int
    ) -> list[tuple[str, Task | None]]:
        def weight(item: tuple[str, Task | None]) -> tuple[float, ...]:
            task_id, task = item
            if task is None:
                return (4, self._order[task_id])
            ended = finished_at(task)
            age = -ended.timestamp() if ended else 0.0
            return (_WEIGHT.get(task.status, 3), age)

        chosen = {task_id for task_id, _ in sorted(leaves.items(), key=weight)[:room]}
        return [item for item in leaves.items() if item[0] in chosen]

    def _table(
        self, shown: Sequence[tuple[str, Task | None]], now: datetime, paint: Paint, width: int
    ) -> Iterator[str]:
        name_width = max((display_width(task_id) for task_id, _ in shown), default=0)
        name_width = min(name_width, max(width - _BESIDE_NAME, _SHORTEST_NAME))
        for task_id, task in shown:
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
            if task and task.message and left >= _SHORTEST_MESSAGE:
                line += f"  {_cut(_one_line(task.message), left - 2)}"
            yield line.rstrip()

    def _bar(self, now: datetime, paint: Paint, width: int) -> str:
        counts = self.counts
        total = max(counts.total(), 1)
        ended = finished_time(self.attempt, self._tasks.values()) or now
        text = f"{self.summary()} · {how_long(ended - self.attempt.created_at)}"
        size = min(_LONGEST_BAR, width - display_width(text) - 4)
        if size < _SHORTEST_BAR:
            return _cut(f"  {text}", width)
        done = sum(count for status, count in counts.items() if status and status.is_finished)
        filled = size * done // total
        fg = "red" if counts[TaskStatus.FAILED] else "green" if done == total else "blue"
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
    return f"{moment.astimezone(now.tzinfo):%H:%M:%S} {task.yaml_id}: {said}"


def _time(task: Task | None, now: datetime) -> str:
    begun = started_at(task) if task else None
    if task is None or begun is None:
        return ""
    return how_long(max((finished_at(task) or now) - begun, timedelta()))


def _left_out(leaves: dict[str, Task | None], shown: set[str]) -> str:
    counts = Counter(
        task.status.value if task else WAITING
        for task_id, task in leaves.items()
        if task_id not in shown
    )
    words = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"  … {counts.total()} more: {words}"


def _waits_for(ahead: Sequence[str]) -> str:
    first, more = ahead[0], len(ahead) - 1
    others = f" and {more} more" if more else ""
    return f"  waits for bake {first}{others} of the same concurrency group"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, width: int) -> str:
    """A text that is not wider than ``width``."""
    if display_width(text) <= width:
        return text
    cut, used = "", 0
    for letter in text:
        used += display_width(letter)
        if used > width - 1:
            break
        cut += letter
    return cut + "…" if width > 0 else ""
