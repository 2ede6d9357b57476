"""The local actions of a bake: commands that run where it is submitted, before anything else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from neuro.domain.bakes import AttemptRequest, TaskRequest, TaskStatus
from neuro.domain.errors import PlatformError
from neuro.flow.batch.actions import Record, RunLocal
from neuro.flow.batch.commands import CommandReader
from neuro.flow.batch.model import join_id
from neuro.flow.batch.patience import Patience, Pauses, is_passing
from neuro.flow.batch.state import BakeState
from neuro.flow.batch.stored import stored_workflow

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.domain.bakes import Attempt, Bake
    from neuro.flow.batch.model import LocalCommand, Workflow

Log = Callable[[str], None]

# How long a command may take to end that was asked to.
GRACE_SECONDS = 10.0


async def local_phase(
    client: Client, workflow: Workflow | None, bake: Bake, attempt: Attempt, log: Log
) -> TaskStatus | None:
    """Run the local actions of an attempt; None where the main phase is next.

    Where one fails, so has the attempt, and that is returned. Without a workflow (of a restart) it
    is read from the files that are kept with the bake. What was recorded as done is not done again.
    """
    patience = Patience(log)
    if workflow is None:
        workflow = await stored_workflow(client, bake, attempt, patience)
    phase = _LocalPhase(client, workflow, bake, attempt, patience, log)
    return await phase.run()


class _LocalPhase:
    def __init__(
        self,
        client: Client,
        workflow: Workflow,
        bake: Bake,
        attempt: Attempt,
        patience: Patience,
        log: Log,
    ) -> None:
        self._client = client
        self._workflow = workflow
        self._bake = bake
        self._attempt = attempt
        self._patience = patience
        self._log = log

    async def run(self) -> TaskStatus | None:
        stored = await self._patience(lambda: self._client.bakes.tasks(self._attempt.id))
        state = BakeState(self._workflow, self._attempt.id, stored, local_phase=True)
        state.start(_now())
        actions = state.take()
        if not any(isinstance(action, RunLocal) for action in actions):
            # What follows without running anything, the executor finds out as well.
            return None
        ended = asyncio.create_task(self._watch())
        try:
            while True:
                await self._write([act.request for act in actions if isinstance(act, Record)])
                commands = [act.command for act in actions if isinstance(act, RunLocal)]
                if not commands:
                    return None
                for command in commands:
                    work = asyncio.create_task(self._run(command, state))
                    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        work.cancel()
                        with suppress(asyncio.CancelledError):
                            await work
                        return await ended
                    if not await work:
                        await self._write(
                            [a.request for a in state.take() if isinstance(a, Record)]
                        )
                        message = f"Local action {join_id(command.id)} failed."
                        return await self._finish(TaskStatus.FAILED, message)
                actions = state.take()
        except asyncio.CancelledError:
            # An interrupt at the terminal: whoever waits for the bake should know.
            await asyncio.shield(self._finish(TaskStatus.CANCELLED, "Interrupted."))
            raise
        finally:
            ended.cancel()
            with suppress(asyncio.CancelledError):
                await ended

    async def _watch(self) -> TaskStatus:
        """Give signs of life; return how the attempt was ended by somebody else."""
        pauses = Pauses()
        bakes, attempt = self._client.bakes, self._attempt
        while True:
            stream = bakes.events(self._bake.id, attempt.number, tasks=False, executor=True)
            try:
                async with aclosing(stream) as events:
                    async for event in events:
                        pauses.reset()
                        if event.attempt is not None and event.attempt.result.is_finished:
                            return event.attempt.result
            except PlatformError as error:
                if not is_passing(error):
                    raise
            await pauses.wait()

    async def _run(self, command: LocalCommand, state: BakeState) -> bool:
        name = join_id(command.id)
        self._log(f"Local action {name} runs.")
        reader = CommandReader()
        message: str | None = None
        try:
            code = await self._execute(command, reader)
        except OSError as error:
            code, message = 127, f"It could not be started: {error}"
        for warning in reader.warnings:
            self._log(warning)
        if code != 0 and message is None:
            message = f"exit code {code}"
        if code == 0 and reader.problem is not None:
            message = reader.problem
        succeeded = message is None
        outcome = "has succeeded" if succeeded else f"has failed: {message}"
        self._log(f"Local action {name} {outcome}.")
        state.local_done(command.id, succeeded, reader.outputs, message, _now())
        return succeeded

    async def _execute(self, command: LocalCommand, reader: CommandReader) -> int:
        if not command.words:
            raise FileNotFoundError("the command is empty")
        process = await asyncio.create_subprocess_exec(
            *command.words,
            cwd=self._attempt.configs_meta.workspace,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            await asyncio.gather(
                self._show(process.stdout, reader), self._show(process.stderr, None)
            )
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)

    async def _show(self, stream: asyncio.StreamReader, reader: CommandReader | None) -> None:
        """Pass on what is printed, line by line as it comes."""
        rest = b""
        while chunk := await stream.read(1 << 16):
            shown = rest + (reader.feed(chunk) if reader is not None else chunk)
            whole, newline, rest = shown.rpartition(b"\n")
            if newline:
                self._log(whole.decode("utf-8", "replace"))
        rest += reader.close() if reader is not None else b""
        if rest.strip():
            self._log(rest.decode("utf-8", "replace").rstrip("\n"))

    async def _write(self, requests: list[TaskRequest]) -> None:
        newest = {request.yaml_id: request for request in requests}
        if newest:
            await self._patience(lambda: self._client.bakes.put_tasks([*newest.values()]))

    async def _finish(self, result: TaskStatus, message: str) -> TaskStatus:
        attempt = self._attempt
        request = AttemptRequest(
            bake_id=attempt.bake_id,
            number=attempt.number,
            result=result,
            configs_meta=attempt.configs_meta,
            message=message,
        )
        kept = await self._patience(lambda: self._client.bakes.replace_attempt(request))
        return kept.result


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _now() -> datetime:
    return datetime.now(UTC)
