"""The local actions of a bake: commands that run where it is submitted, before anything else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from neuro.domain.bakes import AttemptRequest, TaskStatus
from neuro.domain.errors import Conflict, PlatformError
from neuro.flow.batch.commands import CommandReader
from neuro.flow.batch.instructions import Instruction, RunLocal, SaveRecord
from neuro.flow.batch.patience import Patience, Pauses, is_passing
from neuro.flow.batch.state import BakeState
from neuro.flow.batch.stored import is_foreign, stored_workflow
from neuro.flow.batch.wording import told
from neuro.flow.model import join_id

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.domain.bakes import Attempt, Bake, Task
    from neuro.flow.model import LocalCommand, Workflow

Log = Callable[[str], None]

# How long a command may take to end that was asked to.
GRACE_SECONDS = 10.0


async def local_phase(
    client: Client, workflow: Workflow | None, bake: Bake, attempt: Attempt, log: Log
) -> TaskStatus | None:
    """Run the local actions of an attempt; None where the main phase is next.

    Where one fails, so has the attempt, and that is returned. Without a workflow (of a restart) it
    is read from the files that are kept with the bake. Recorded work is not done again.
    """
    patience = Patience(log)
    if workflow is None:
        workflow = await stored_workflow(client, bake, attempt, patience)
    phase = _LocalPhase(client, workflow, bake, attempt, patience, log)
    return await phase.run()


async def refuse_local_actions(
    client: Client, bake: Bake, attempt: Attempt, kept: Iterable[Task]
) -> None:
    """Raise Conflict where a restart of another's bake would run its commands on this machine.

    ``attempt`` is the one to begin from, ``kept`` are the records that the new one would have.
    """
    if not is_foreign(client, bake):
        return
    workflow = await stored_workflow(client, bake, attempt, Patience(lambda _: None))
    state = BakeState(workflow, attempt.id, [*kept], local_phase=True)
    state.start(_now())
    _refuse(bake, state.take())


def _refuse(bake: Bake, instructions: Iterable[Instruction]) -> None:
    for instruction in instructions:
        if isinstance(instruction, RunLocal):
            raise Conflict(
                f"Bake {bake.name or bake.id} is {bake.owner}'s: {bake.owner}'s local action"
                f" {join_id(instruction.command.id)} would run on your machine. {bake.owner} can"
                " restart it."
            )


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
        instructions = state.take()
        if not any(isinstance(instruction, RunLocal) for instruction in instructions):
            # The executor finds out as well what follows without running anything.
            return None
        if is_foreign(self._client, self._bake):
            _refuse(self._bake, instructions)
        watch = asyncio.create_task(self._watch())
        try:
            return await self._all(state, instructions, watch)
        except asyncio.CancelledError:
            # An interrupt at the terminal: whoever waits for the bake should know.
            await asyncio.shield(self._interrupted(state))
            raise
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _all(
        self, state: BakeState, instructions: list[Instruction], watch: asyncio.Task[TaskStatus]
    ) -> TaskStatus | None:
        while True:
            await self._write(instructions)
            commands = [
                instruction.command
                for instruction in instructions
                if isinstance(instruction, RunLocal)
            ]
            if not commands:
                return None
            for command in commands:
                status = await self._run(command, state, watch)
                if status is not TaskStatus.SUCCEEDED:
                    await self._write(state.take())
                    if status is TaskStatus.CANCELLED:
                        return await watch
                    message = f"Local action {join_id(command.id)} failed."
                    return await self._finish(TaskStatus.FAILED, message)
            instructions = state.take()

    async def _interrupted(self, state: BakeState) -> None:
        await self._write(state.take())
        await self._finish(TaskStatus.CANCELLED, "It was interrupted.")

    async def _watch(self) -> TaskStatus:
        """Give signs of life; return how the attempt was ended by somebody else."""
        pauses = Pauses()
        bakes, attempt = self._client.bakes, self._attempt
        while True:
            lost: PlatformError | None = None
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
                lost = error
            await pauses.wait(lost)

    async def _run(
        self, command: LocalCommand, state: BakeState, watch: asyncio.Task[TaskStatus]
    ) -> TaskStatus:
        """Run a command to its end, or until the attempt was ended."""
        name = join_id(command.id)
        self._log(f"Local action {name} runs.")
        reader = CommandReader()
        work = asyncio.create_task(self._execute(command, reader))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
            for warning in reader.warnings:
                self._log(warning)
            status, message = _outcome(work, reader)
            self._log(f"Local action {name} {told(status)}" + (f": {message}" if message else ""))
            state.local_done(command.id, status, reader.outputs, message, _now())
        return status

    async def _execute(self, command: LocalCommand, reader: CommandReader) -> int:
        if not command.words:
            raise FileNotFoundError("the command is empty")
        process = await asyncio.create_subprocess_exec(
            *command.words,
            cwd=self._attempt.configs_meta.workspace,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Its own children can be ended with it.
            start_new_session=True,
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

    async def _write(self, instructions: list[Instruction]) -> None:
        requests = [
            instruction.request
            for instruction in instructions
            if isinstance(instruction, SaveRecord)
        ]
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


def _outcome(work: asyncio.Task[int], reader: CommandReader) -> tuple[TaskStatus, str | None]:
    """How a command ended, and why."""
    if work.cancelled():
        return TaskStatus.CANCELLED, None
    error = work.exception()
    if isinstance(error, OSError) and error.filename is not None:
        return TaskStatus.FAILED, f"It could not be started: {error.filename}: {error.strerror}"
    if error is not None:
        return TaskStatus.FAILED, f"It could not be started: {error}"
    code = work.result()
    problem = f"exit code {code}" if code else reader.problem
    return (TaskStatus.FAILED if problem else TaskStatus.SUCCEEDED), problem


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        os.killpg(process.pid, signal.SIGKILL)


def _now() -> datetime:
    return datetime.now(UTC)
