"""A job outlives the server: kill -9 at any moment, then a restart, loses nothing."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from neuro.engines.base import ExitCause, RunNotFound, RunRef, RunSpec, RunState
from tests.engines.harness import (
    MIB,
    PATIENCE,
    EngineKind,
    Finished,
    Has,
    Runs,
    eventually,
    gone,
    needs,
    spec,
)

pytestmark = needs(Has.PROGRAMS, Has.SUPERVISORS)

CHECKOUT = Path(__file__).parents[3]


class Servers:
    """Servers on one folder, one after the other; at the end a last one removes everything."""

    def __init__(self, kind: EngineKind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._open: list[Runs] = []

    async def begin(self, specs: Sequence[RunSpec], known: Collection[RunRef] = ()) -> None:
        """A server in a process of its own, until the commands of ``specs`` are started.

        A start that is accepted need not have come to its command yet.
        """
        process = await self.launch(specs, known)
        await self.line(process, b"begun")
        for _ in specs:
            await self.line(process, b"Started")

    async def launch(
        self, specs: Sequence[RunSpec], known: Collection[RunRef] = ()
    ) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.engines.driver", self.kind.name, str(self.folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
        )
        assert self._process.stdin is not None
        for value in (list(known), list(specs)):
            self._process.stdin.write(msgspec.json.encode(value) + b"\n")
        return self._process

    async def line(self, process: asyncio.subprocess.Process, beginning: bytes) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not (line := await process.stdout.readline()).startswith(beginning):
                assert line, f"the server ended before it said {beginning!r}"

    async def kill(self) -> None:
        """kill -9 of the server."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def restart(self, known: Collection[RunRef]) -> tuple[Runs, dict[RunRef, RunState]]:
        """The next server, in this process."""
        engine = self.kind.make(self.folder)
        await engine.open()
        states = await engine.adopt(known)
        runs = Runs(engine)
        self._open.append(runs)
        return runs, states

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()
        for runs in self._open:
            await runs.close()


@pytest_asyncio.fixture(loop_scope="module")
async def servers(kind: EngineKind, folder: Path) -> AsyncIterator[Servers]:
    made = Servers(kind, folder)
    yield made
    await made.close()
    last, _ = await Servers(kind, folder).restart([])
    await last.close()
    await gone(lambda: kind.traces(folder))


def refs(specs: Sequence[RunSpec]) -> list[RunRef]:
    return [RunRef(one.job_id, one.run) for one in specs]


async def finish(runs: Runs, ref: RunRef, state: RunState) -> Finished:
    """The end of an adopted run, which may have come before or after."""
    exited = state.exited or await runs.exited(ref)
    return Finished(ref, exited, await runs.output(ref.job_id))


async def test_a_run_goes_on_and_its_log_and_exit_code_are_kept(servers: Servers) -> None:
    script = "echo one; sleep 1; echo two; exit 7"
    begun = spec("sh", "-c", script)
    await servers.begin([begun])

    await servers.kill()
    runs, states = await servers.restart(refs([begun]))

    ref = RunRef(begun.job_id)
    assert states[ref].started is not None
    done = await finish(runs, ref, states[ref])
    assert (done.code, done.output) == (7, b"one\ntwo\n")


async def test_a_run_that_ended_without_a_server_is_reported(servers: Servers) -> None:
    begun = spec("sh", "-c", "sleep 0.3; echo end; exit 9")
    await servers.begin([begun])
    supervisor = servers.kind.supervisor_of(servers.folder, RunRef(begun.job_id))
    await servers.kill()

    await eventually(lambda: not _alive(supervisor), "the run does not end")
    runs, states = await servers.restart(refs([begun]))

    state = states[RunRef(begun.job_id)]
    assert state.started is not None
    assert state.exited is not None
    assert (state.exited.exit_code, state.exited.cause) == (9, ExitCause.ERROR)
    assert await runs.output(begun.job_id, follow=True) == b"end\n"


def _alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


async def test_what_is_written_while_no_server_lives_is_not_lost(servers: Servers) -> None:
    begun = spec("sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; sleep 1")
    await servers.begin([begun])

    await servers.kill()
    runs, states = await servers.restart(refs([begun]))
    done = await finish(runs, RunRef(begun.job_id), states[RunRef(begun.job_id)])

    assert done.lines == [str(i) for i in range(2000)]


async def test_an_adopted_run_can_be_followed_entered_and_stopped(servers: Servers) -> None:
    begun = spec("sh", "-c", "echo ready; sleep 600")
    await servers.begin([begun])
    await servers.kill()

    runs, _ = await servers.restart(refs([begun]))
    ref = RunRef(begun.job_id)
    await runs.says(ref.job_id, b"ready")
    code, out, _ = await runs.execute(ref, "echo", "inside")
    await runs.engine.stop(ref, 5)

    assert (code, out) == (0, b"inside\n")
    assert (await runs.exited(ref)).exit_code == 143


async def test_the_grace_of_a_stop_ends_without_a_server(servers: Servers) -> None:
    begun = spec("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    runs, _ = await servers.restart([])
    await runs.engine.start(begun)
    await runs.says(begun.job_id, b"ready")
    supervisor = servers.kind.supervisor_of(servers.folder, RunRef(begun.job_id))
    await runs.engine.stop(RunRef(begun.job_id), 0.5)
    await runs.close()

    await eventually(lambda: not _alive(supervisor), "the run is not killed")
    _, states = await servers.restart(refs([begun]))

    exited = states[RunRef(begun.job_id)].exited
    assert exited is not None
    assert exited.exit_code == 137


async def test_a_closed_engine_lets_its_runs_go_on(servers: Servers) -> None:
    begun = spec("sh", "-c", "sleep 0.5; echo end")
    runs, _ = await servers.restart([])
    await runs.engine.start(begun)

    await runs.close()
    again, states = await servers.restart(refs([begun]))
    done = await finish(again, RunRef(begun.job_id), states[RunRef(begun.job_id)])

    assert (done.code, done.output) == (0, b"end\n")


async def test_a_start_that_is_repeated_after_a_restart_runs_once(servers: Servers) -> None:
    begun = spec("sh", "-c", "echo ran; sleep 0.5")
    await servers.begin([begun])
    await servers.kill()

    runs, _ = await servers.restart(refs([begun]))
    await runs.engine.start(begun)
    done = await runs.finished(RunRef(begun.job_id))

    assert done.output == b"ran\n"


async def test_what_nobody_knows_is_removed(servers: Servers) -> None:
    kept, unknown = spec("sleep", "600"), spec("sleep", "600")
    await servers.begin([kept, unknown])
    lost = servers.kind.supervisor_of(servers.folder, RunRef(unknown.job_id))
    await servers.kill()

    runs, states = await servers.restart(refs([kept]))

    assert set(states) == set(refs([kept]))
    await eventually(lambda: not _alive(lost), "the unknown run goes on")
    with pytest.raises(RunNotFound):
        await runs.output(unknown.job_id)
    assert not [trace for trace in servers.kind.traces(servers.folder) if unknown.job_id in trace]


async def test_the_log_of_a_known_job_stays_whichever_run_is_named(servers: Servers) -> None:
    first = spec("echo", "first")
    await servers.begin([first])
    await servers.kill()

    runs, states = await servers.restart([RunRef(first.job_id, 1)])

    assert states == {}
    assert await runs.output(first.job_id, follow=True) == b"first\n"


async def test_known_runs_that_never_began_are_left_out(servers: Servers) -> None:
    _, states = await servers.restart([RunRef("job-never", 0)])

    assert states == {}


async def test_a_run_whose_supervision_is_killed_is_lost(servers: Servers) -> None:
    runs, _ = await servers.restart([])
    ref = await runs.start("sh", "-c", "echo ready; exec sleep 27182.8")
    await runs.says(ref.job_id, b"ready")
    supervisor = servers.kind.supervisor_of(servers.folder, ref)
    assert supervisor is not None

    os.kill(supervisor, signal.SIGKILL)
    exited = await runs.exited(ref)

    assert (exited.exit_code, exited.cause) == (None, ExitCause.LOST)
    assert await runs.output(ref.job_id, follow=True) == b"ready\n"
    await eventually(lambda: not _sleeping("27182.8"), "the job's process goes on")

    def groups() -> set[str]:
        # Also of a berth that is being made for another run, until its folder says so.
        return {trace for trace in servers.kind.traces(servers.folder) if "group" in trace}

    await gone(groups)


def _sleeping(number: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if number in path.read_bytes().decode("utf-8", "replace"):
                return True
        except OSError:
            continue
    return False


async def test_a_run_that_was_lost_without_a_server_is_found_lost(servers: Servers) -> None:
    begun = spec("sleep", "600")
    await servers.begin([begun])
    ref = RunRef(begun.job_id)
    supervisor = servers.kind.supervisor_of(servers.folder, ref)
    assert supervisor is not None
    await servers.kill()

    os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: not _alive(supervisor), "the supervisor does not die")
    _, states = await servers.restart([ref])

    exited = states[ref].exited
    assert exited is not None
    assert exited.cause == ExitCause.LOST


@pytest.mark.slow
async def test_kill_9_at_random_moments_loses_nothing(servers: Servers) -> None:
    chance = random.Random(20)
    specs = [
        spec(
            "sh",
            "-c",
            f"echo a {i}; sleep {0.1 * (i % 20)}; echo b {i}; exit {i}",
            cpu=0.1,
            memory=64 * MIB,
        )
        for i in range(50)
    ]
    for _ in range(8):
        process = await servers.launch(specs, refs(specs))
        await servers.line(process, b"open")
        await asyncio.sleep(chance.uniform(0, 0.4))
        await servers.kill()

    runs, states = await servers.restart(refs(specs))
    for one in specs:
        await runs.engine.start(one)
    for i, one in enumerate(specs):
        ref = RunRef(one.job_id)
        done = await finish(runs, ref, states.get(ref, RunState()))
        assert (done.code, done.lines) == (i, [f"a {i}", f"b {i}"])
