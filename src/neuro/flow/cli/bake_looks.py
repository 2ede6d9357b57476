"""How bakes, their tasks and their times look: signs, colours, words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from neuro.domain.bakes import Bake, ImageStatus, Task, TaskStatus
from neuro.domain.printable import printable

if TYPE_CHECKING:
    from neuro.flow.batch.sketch import Mark

COLORS: Mapping[TaskStatus, str] = {
    TaskStatus.UNKNOWN: "bright_black",
    TaskStatus.PENDING: "cyan",
    TaskStatus.RUNNING: "blue",
    TaskStatus.SUCCEEDED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.CANCELLED: "yellow",
    TaskStatus.SKIPPED: "bright_black",
    TaskStatus.CACHED: "magenta",
}
SIGNS: Mapping[TaskStatus, str] = {
    TaskStatus.UNKNOWN: "?",
    TaskStatus.PENDING: "◌",
    TaskStatus.RUNNING: "●",
    TaskStatus.SUCCEEDED: "✓",
    TaskStatus.FAILED: "✗",
    TaskStatus.CANCELLED: "⊘",
    TaskStatus.SKIPPED: "–",
    TaskStatus.CACHED: "◆",
}
# Characters that no shell interprets: letters of any language too.
_PLAIN = re.compile(r"[\w.:@%+=/-]+")
# As much of an output as stands in one line with others.
_LONGEST_VALUE = 80
# The sign and the word of a task that has not begun.
WAITING_SIGN, WAITING = "○", "waiting"
IMAGE_COLORS: Mapping[ImageStatus, str] = {
    ImageStatus.PENDING: "cyan",
    ImageStatus.BUILDING: "blue",
    ImageStatus.BUILT: "green",
    ImageStatus.BUILD_FAILED: "red",
    ImageStatus.CACHED: "magenta",
}


def mark(status: TaskStatus | None) -> Mark:
    """A task in a drawing of its bake."""
    from neuro.flow.batch.sketch import Mark

    if status is None:
        return Mark(WAITING_SIGN, "bright_black", kind=WAITING)
    loud = status in (TaskStatus.FAILED, TaskStatus.RUNNING)
    return Mark(SIGNS[status], COLORS[status], kind=status.value, loud=loud)


def called(bake: Bake) -> str:
    """A bake's name, or its id where it has none."""
    return bake.name or bake.id


def word_of(bake: Bake) -> str:
    """A bake as a word of a command line: names may have blanks."""
    return _word(called(bake))


def assignments(params: Mapping[str, str]) -> str:
    """Parameters in one line; values that a shell would not take as they are stand in quotes.

    >>> assignments({"lr": "0.1", "words": "a, b", "none": "", "lines": "1\\n2"})
    "lr=0.1, words='a, b', none='', lines='1\\\\n2'"
    """
    return ", ".join(
        f"{name}={_word(value) if value.isprintable() else repr(value)}"
        for name, value in params.items()
    )


def outputs_line(outputs: Mapping[str, str]) -> str:
    """Outputs in one line, as parameters are written; the ends of long values are left out.

    >>> outputs_line({"loss": "0.25", "words": "5 is prime"})
    "loss=0.25, words='5 is prime'"
    """
    return assignments(
        {
            name: value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
            for name, value in outputs.items()
        }
    )


def outputs_lines(outputs: Mapping[str, str], indent: str) -> Iterator[str]:
    """A line for each output; the further lines of a value stand below its first one."""
    for name, value in outputs.items():
        first, *rest = map(printable, value.split("\n"))
        yield f"{indent}{name}: {first}"
        yield from (f"{indent}  {line}" for line in rest)


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else shlex.quote(text)


def started_at(task: Task) -> datetime | None:
    """When a task began to run; None for one that never did."""
    return next(
        (step.created_at for step in task.statuses if step.status is TaskStatus.RUNNING), None
    )


def finished_at(task: Task) -> datetime | None:
    """When a task ended."""
    return task.statuses[-1].created_at if task.status.is_finished else None


def took(task: Task, now: datetime) -> timedelta | None:
    """How long a task ran, or has run so far; None for one that never began."""
    begun = started_at(task)
    return None if begun is None else max((finished_at(task) or now) - begun, timedelta())


def clock(moment: datetime, now: datetime) -> str:
    """A time of today, or a time with its date.

    >>> from datetime import UTC
    >>> clock(datetime(2026, 11, 2, 7, 5, 9, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
    '07:05:09'
    """
    there = moment.astimezone(now.tzinfo)
    if there.date() == now.date():
        return there.strftime("%H:%M:%S")
    return there.strftime("%b %d %H:%M" if there.year == now.year else "%b %d %Y")


def how_long(duration: timedelta) -> str:
    """A duration in the two units that matter.

    >>> how_long(timedelta(seconds=0.25)), how_long(timedelta(hours=2, minutes=5, seconds=7))
    ('0.2s', '2h 5m')
    """
    seconds = max(duration.total_seconds(), 0.0)
    if seconds < 10:
        return f"{int(seconds * 10) / 10:.1f}s"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    first = next(number for number, (value, _) in enumerate(units) if value)
    return " ".join(f"{value}{name}" for value, name in units[first : first + 2] if value)
