"""What of a bake happens on this machine: its local actions, and driving it where asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Thread
from typing import TYPE_CHECKING

from neuro.cli.failures import INTERRUPTED
from neuro.flow.cli.cancel import cancel
from neuro.flow.cli.context import FlowContext

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, TaskStatus
    from neuro.flow.model import Workflow


def run_local_phase(
    context: FlowContext, workflow: Workflow | None, bake: Bake, attempt: Attempt
) -> TaskStatus | None:
    """Run the local actions. Return the attempt's result, or None where it goes on.

    Without a workflow it is read from the files that are kept with the bake.
    """
    from neuro.flow.batch.local import local_phase

    async def phase() -> TaskStatus | None:
        async with context.loop_client() as client:
            return await local_phase(client, workflow, bake, attempt, context.out.note)

    return asyncio.run(phase())


class LocalDriver:
    """Drives a bake in a thread of this process, while the main one watches."""

    def __init__(self, context: FlowContext, bake: Bake, attempt: Attempt) -> None:
        self._context = context
        self._bake = bake
        self._attempt = attempt
        self._error: BaseException | None = None
        self._interrupted = False
        self._ended = False
        self._wake: Callable[[], None] | None = None
        self._thread = Thread(target=self._run, name="executor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether the bake is driven no longer. Raises what the executor failed of."""
        if self._ended and self._error is not None:
            raise self._error
        return self._ended

    def call_at_end(self, wake: Callable[[], None]) -> None:
        """Have something called, in the thread of the driver or at once, when it has ended."""
        self._wake = wake
        if self._ended:
            wake()

    def interrupt(self) -> str:
        """Cancel the bake; the second time, leave it as it is. Raises KeyboardInterrupt."""
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        cancel(self._context, self._attempt)
        return "Cancelling: what runs is being stopped. Ctrl-C again leaves at once."

    def exit_code(self, code: int) -> int:
        """The command's exit code: an interrupt's, where an interrupt ended the bake."""
        return INTERRUPTED if self._interrupted and code else code

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except BaseException as error:
            self._error = error
        self._ended = True
        if self._wake is not None:
            self._wake()

    async def _drive(self) -> None:
        from neuro.flow.batch.executor import drive

        async with self._context.loop_client() as client:
            await drive(client, self._bake.id, executor_id=None, log=self._context.out.info)
