"""The records of tasks, written behind what happens.

An executor does not wait for records before it acts: the end of a task starts its dependents at
once. That loses nothing, because nearly everything in a record follows again from something that
is kept already:

* that a try was submitted, and as which job: from its key, with which the submission is repeated
  and answered with the same job (``requests.submission_key``). The number of the try is the number
  of ``pending`` steps in the record, so a try that was never recorded is submitted under the very
  key that it had;
* when a job ran, how it ended, what it set, whether and when it is tried again: from the job and
  its output, which the server keeps;
* that a task was skipped, a call opened, a group expanded: from the outcomes of what it needs. A
  bake that is being cancelled is known from the attempt, or from the task that failed.

What does not follow again is written before anything is built upon it (``write``):

* that an earlier outcome was taken from the cache: it may be gone a moment later, and a dependent
  that was submitted with its outputs could not be submitted again with others;
* how a local command ended: it is not run twice;
* all records, before the attempt gets its result: a restart copies from them.

The outcome of a task is kept for later bakes by the record that tells of its end: there is never
one without the other, which the next executor would take for another's.

A newer record of a task replaces the older one that still waits, so at most one record of each
task waits, however long the server is away. Records go out in the order in which their tasks were
first changed. The server keeps the record of a task that has ended: what another executor has
written by then stands, and this one's is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from neuro.domain.bakes import TaskRequest
from neuro.domain.errors import Conflict, InvalidInput, TooLarge
from neuro.flow.batch.patience import Patience

# Changes are gathered for so long before they are sent: a short task's whole life is one call
# instead of three.
LINGER_SECONDS = 0.1
MAX_TASKS = 1000
MAX_BYTES = 8 << 20

Put = Callable[[Sequence[TaskRequest]], Awaitable[None]]


class Records:
    """Write-behind records of one attempt's tasks; ``run`` writes them while it runs."""

    def __init__(self, put: Put, patience: Patience, log: Callable[[str], None]) -> None:
        self._put = put
        self._patience = patience
        self._log = log
        self._waiting: dict[str, TaskRequest] = {}
        self._sending = False
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        self._written = asyncio.Condition()

    def add(self, request: TaskRequest) -> None:
        """Have a record written soon, in place of an older one of its task."""
        self._waiting[request.yaml_id] = request
        self._news.set()

    async def write(self, request: TaskRequest) -> None:
        """Have a record written, and wait for it."""
        self.add(request)
        await self.flush()

    async def flush(self) -> None:
        """Wait until all records so far are written."""
        if self._waiting:
            self._hurry.set()
        async with self._written:
            await self._written.wait_for(lambda: not self._waiting and not self._sending)

    async def run(self) -> None:
        """Write records as they come, until cancelled."""
        while True:
            await self._news.wait()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            self._news.clear()
            while self._waiting:
                self._sending = True
                await self._send(self._take())
                self._sending = False
            async with self._written:
                self._written.notify_all()

    def _take(self) -> list[TaskRequest]:
        taken: list[TaskRequest] = []
        size = 0
        for request in self._waiting.values():
            size += _size(request)
            if taken and (size > MAX_BYTES or len(taken) == MAX_TASKS):
                break
            taken.append(request)
        for request in taken:
            del self._waiting[request.yaml_id]
        return taken

    async def _send(self, requests: list[TaskRequest]) -> None:
        try:
            await self._patience(lambda: self._put(requests))
        except (Conflict, InvalidInput, TooLarge) as error:
            if len(requests) == 1:
                self._log(f"The server refused the record of {requests[0].yaml_id}: {error}")
                return
            for request in requests:
                await self._send([request])


def _size(request: TaskRequest) -> int:
    size = 200 + 60 * len(request.statuses) + len(request.message or "")
    for values in (request.outputs, request.state):
        if values:
            # As much as JSON's escapes can make of it, roughly.
            size += sum(len(name) + 2 * len(value) for name, value in values.items())
    return size
