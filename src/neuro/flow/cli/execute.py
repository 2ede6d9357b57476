"""``neuro-flow execute``: drive a bake. This is what its main job runs; people need `bake`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from neuro.domain.bakes import TaskStatus

# A terminal that goes away, or a key that is pressed in one, does not end the executor.
_IGNORED = ("HUP", "INT", "QUIT", "TSTP", "TTIN", "TTOU", "WINCH")


class _Log:
    """Prints what happened, all of one turn of the event loop together.

    Each write wakes the process that keeps the output, and short tasks change three times.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._is_printing = False

    def __call__(self, text: str) -> None:
        from datetime import datetime

        sys.stdout.write(f"[{datetime.now().astimezone():%H:%M:%S %z}] {text}\n")
        if not self._is_printing:
            self._is_printing = True
            self._loop.call_soon(self._print)

    def _print(self) -> None:
        self._is_printing = False
        sys.stdout.flush()


@click.command("execute", cls=Command, hidden=True)
@click.argument("bake_id", metavar="BAKE_ID")
@pass_context
def command(context: FlowContext, bake_id: str) -> int:
    """Drive the last attempt of a bake to its end. Exit code 0 where it succeeded, else 1."""
    for name in _IGNORED:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    import asyncio

    from neuro.domain.bakes import TaskStatus

    result = asyncio.run(_drive(context, bake_id))
    return 0 if result is TaskStatus.SUCCEEDED else 1


async def _drive(context: FlowContext, bake_id: str) -> TaskStatus:
    from asyncio import get_running_loop

    from neuro.flow.batch.executor import drive

    executor = os.environ.get("NEURO_JOB_ID") or None
    async with context.loop_client() as client:
        return await drive(client, bake_id, executor_id=executor, log=_Log(get_running_loop()))
