"""What jobs within a bake wait for: ``neuro ps`` says it of each job, and a bake of its tasks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import aclosing, suppress

from neuro.client import Client
from neuro.domain.bakes import Task, TaskStatus
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import JobFilter, JobStatus
from neuro.flow.cli.board import Board
from neuro.flow.cli.context import FlowContext

# Between two questions; most jobs start sooner than that, and nobody asks.
_PAUSE = 2.0


async def reasons(client: Client, bake_id: str, tasks: Iterable[Task]) -> dict[str, str]:
    """What a bake's pending tasks wait for, by their full ids."""
    pending = {
        task.raw_id: task.yaml_id
        for task in tasks
        if task.raw_id and task.status is TaskStatus.PENDING
    }
    if not pending:
        return {}
    query = JobFilter(status=[JobStatus.PENDING], tag=[f"bake_id:{bake_id}"])
    async with aclosing(client.jobs.list(query)) as jobs:
        return {
            pending[job.id]: job.history.description
            async for job in jobs
            if job.id in pending and job.history.description
        }


class Waiting:
    """Keeps a board's reasons fresh."""

    def __init__(self, context: FlowContext, board: Board) -> None:
        self._context = context
        self._board = board
        self._next = 0.0

    def look(self) -> None:
        """Ask, if it is time and something waits. A server that is away tells nothing new."""
        if not self._board.is_waiting:
            self._board.reasons = {}
            self._next = time.monotonic() + _PAUSE
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            with suppress(PlatformError):
                bake, tasks = self._board.bake.id, self._board.tasks
                self._board.reasons = self._context.run(reasons(self._context.client, bake, tasks))
