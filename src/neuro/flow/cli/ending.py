"""How a bake ended: its result, what failed with the end of its output, what can be done."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING

from neuro.cli.render.times import local_now
from neuro.domain.bakes import Task, TaskStatus
from neuro.domain.errors import PlatformError
from neuro.domain.printable import printable
from neuro.flow.cli.bake_looks import COLORS, SIGNS, called, how_long, word_of
from neuro.flow.cli.board import Board, finished_time
from neuro.flow.cli.context import FlowContext

if TYPE_CHECKING:
    from neuro.client import Client

# Of how many failed tasks the output is shown, and how much of it.
_TASKS, _LINES, _LINE = 3, 10, 200
# A message may have several lines.
_KEPT = "\n\t"
# Longer outputs are not read to their end for ten lines.
_READ = 64 << 20
# Colours, titles and moves of the cursor.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def tell_end(context: FlowContext, board: Board) -> int:
    """Print it; 0 for a bake that succeeded, 1 for any other."""
    out, attempt, name = context.out, board.attempt, called(board.bake)
    succeeded = attempt.result is TaskStatus.SUCCEEDED
    if out.quiet:
        return 0 if succeeded else 1
    ended = finished_time(attempt, board.tasks) or local_now()
    result = context.paint(attempt.result.value, COLORS[attempt.result])
    out.print(f"Bake {name}: attempt #{attempt.number} {result} in"
              f" {how_long(ended - attempt.created_at)} ({board.summary()})")  # fmt: skip
    failed = board.failed
    if attempt.message and (not failed or attempt.result is TaskStatus.CANCELLED):
        # The message of a failed bake repeats the task's.
        out.print(f"  {printable(attempt.message, keep=_KEPT)}")
    if succeeded:
        return 0
    for task in failed[:_TASKS]:
        _tell_task(context, task, word_of(board.bake))
    if len(failed) > _TASKS:
        rest = ", ".join(task.yaml_id for task in failed[_TASKS:])
        out.print(f"\nFailed as well: {rest}")
    out.flush()
    out.note(f"\nTo run again what did not succeed: neuro-flow restart {word_of(board.bake)}")
    return 1


def _tell_task(context: FlowContext, task: Task, bake: str) -> None:
    out = context.out
    sign = context.paint(SIGNS[TaskStatus.FAILED], COLORS[TaskStatus.FAILED])
    message = f": {printable(task.message, keep=_KEPT)}" if task.message else ""
    out.print(f"\n{sign} {task.yaml_id}{message}")
    if task.raw_id is None:
        return
    try:
        lines = context.run(_last_lines(context.client, task.raw_id))
    except (PlatformError, OSError) as error:
        lines = [f"(its output could not be read: {error})"]
    for line in lines:
        out.print(context.paint(f"    {line}", "bright_black"))
    out.print(f"  all of its output: neuro-flow show {bake} {task.yaml_id}")


async def _last_lines(client: Client, job_id: str) -> list[str]:
    from neuro.flow.batch.commands import CommandReader

    reader, kept, tail = CommandReader(), 0, b""
    async with aclosing(client.jobs.logs(job_id)) as chunks:
        async for chunk in chunks:
            kept += len(chunk)
            tail = (tail + reader.feed(chunk))[-_LINES * 4 * _LINE :]
            if kept > _READ:
                return ["(its output is long)"]
    tail += reader.close()
    text = tail.decode(errors="replace").rstrip("\r\n")
    lines = text.split("\n") if text else []
    return [last_shown(line)[:_LINE] for line in lines[-_LINES:]]


def last_shown(line: str) -> str:
    """A line as a terminal shows it in the end: without colours, with the last progress.

    >>> last_shown("\\x1b[31mloss\\x1b[0m 0.5")
    'loss 0.5'
    >>> last_shown("10%\\r20%\\r")
    '20%'
    """
    last = _ESCAPE.sub("", line).rstrip("\r").rpartition("\r")[2]
    return "".join(letter if letter.isprintable() else " " for letter in last)
