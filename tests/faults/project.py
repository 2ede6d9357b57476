"""A project whose bakes run on a server that may be away, and what its tasks leave behind."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from neuro.domain.bakes import Attempt, Bake, Task
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job, JobFilter
from neuro.flow.batch.plan import make_plan
from neuro.flow.batch.submit import submit
from neuro.flow.evaluate.environment import Environment
from neuro.flow.workspace import find_workspace
from tests.server_process import ServerProcess

# Every task leaves a line in a file of its own whenever it runs: see `Project.runs`.
HEAD = """\
kind: batch
defaults:
  preset: cpu-small
  fail_fast: false
  cache:
    strategy: none
  volumes:
    - storage:left:/left:rw
tasks:
"""
# What a task does that lasts until a test opens this gate: see `Project.open`.
UNTIL_OPEN = "until test -e /left/@GATE@; do sleep 0.02; done"


def until_open(gate: str) -> str:
    """A command that waits for a gate."""
    return UNTIL_OPEN.replace("@GATE@", gate)


class Project:
    """A workspace in a folder; its batches are driven by main jobs or by processes of ours."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server = server
        self.home = folder
        self.workspace = folder / "faults"
        (self.workspace / ".neuro").mkdir(parents=True)

    def write(self, batch: str, text: str) -> None:
        """Write the file of a batch."""
        (self.workspace / ".neuro" / f"{batch}.yml").write_text(text)

    def connect(self) -> Client:
        return Client.connect(self.server.url, self.server.token)

    # Bakes.

    async def submit(
        self, batch: str, name: str | None = None, **params: str
    ) -> tuple[Bake, Attempt]:
        """A bake that nobody drives yet."""
        environment = Environment(
            user=self.server.user, cwd=self.workspace, cache_dir=self.home / "cache"
        )
        plan = make_plan(find_workspace(self.workspace), batch, params, environment)
        async with self.connect() as client:
            return await submit(client, plan, name=name, tags=())

    async def bake(
        self, batch: str, name: str | None = None, **params: str
    ) -> tuple[Bake, Attempt]:
        """A bake whose main job has been asked for."""
        bake, attempt = await self.submit(batch, name, **params)
        async with self.connect() as client:
            await client.bakes.start_executor(attempt.id)
        return bake, attempt

    async def changes(
        self, bake: Bake, attempt: int = -1
    ) -> AsyncGenerator[tuple[bool, Attempt | Task]]:
        """How things are, and then what changes and is new, for as long as the server is there."""
        is_new = False
        async with self.connect() as client:
            stream = client.bakes.events(bake.id, attempt)
            async with contextlib.aclosing(stream) as events:
                async for event in events:
                    if (change := event.attempt or event.task) is not None:
                        yield is_new, change
                    is_new = is_new or event.synced

    async def until(
        self, bake: Bake, wanted: Callable[[Attempt | Task], bool], attempt: int = -1
    ) -> None:
        """Wait for a change, however often the server goes away meanwhile."""
        while True:
            try:
                async with contextlib.aclosing(self.changes(bake, attempt)) as changes:
                    async for _, change in changes:
                        if wanted(change):
                            return
            except PlatformError as error:
                if not isinstance(error, ServerUnreachable) and error.status < 500:
                    raise
            await asyncio.sleep(0.05)

    async def reached(self, bake: Bake, *tasks: str, status: str = "running") -> None:
        """Wait until tasks have been in a state."""
        missing = {*tasks}

        def wanted(change: Attempt | Task) -> bool:
            if isinstance(change, Attempt):
                assert not change.result.is_finished, (change, missing)
            elif status in {step.status for step in change.statuses}:
                missing.discard(change.yaml_id)
            return not missing

        await self.until(bake, wanted)

    async def ended(self, bake: Bake, attempt: int = -1) -> Attempt:
        """The attempt once it is over."""
        found: list[Attempt] = []

        def wanted(change: Attempt | Task) -> bool:
            if isinstance(change, Attempt) and change.result.is_finished:
                found.append(change)
            return bool(found)

        await self.until(bake, wanted, attempt)
        return found[0]

    async def tasks(self, attempt: Attempt) -> dict[str, Task]:
        async with self.connect() as client:
            return {task.yaml_id: task for task in await client.bakes.tasks(attempt.id)}

    async def known(self, name: str) -> Bake:
        """The bake of this name, once somebody has submitted it."""
        async with self.connect() as client:
            while True:
                for found in await client.flows.projects():
                    bake = await client.bakes.by_name(found.id, name)
                    if bake is not None and bake.last_attempt is not None:
                        return bake
                await asyncio.sleep(0.05)

    async def over(self, job: Job) -> None:
        """Wait for the end of a job."""
        async with self.connect() as client:
            async for _ in client.jobs.logs(job.id):
                pass
            assert (await client.jobs.get(job.id)).status.is_finished

    async def jobs(self, bake: Bake) -> list[Job]:
        """The jobs that its tasks have had."""
        return [job for job in await self._all_jobs(bake) if "remote_executor" not in job.tags]

    async def executors(self, bake: Bake) -> list[Job]:
        """Its main jobs once they are over, the first one first."""
        found = [job for job in await self._all_jobs(bake) if "remote_executor" in job.tags]
        for job in found:
            await self.over(job)
        return [job for job in await self._all_jobs(bake) if "remote_executor" in job.tags]

    async def _all_jobs(self, bake: Bake) -> list[Job]:
        query = JobFilter(tag=[f"bake_id:{bake.id}"])
        async with self.connect() as client:
            return [job async for job in client.jobs.list(query)]

    # Processes that drive bakes.

    def executor_of(self, bake: Bake) -> int:
        """The process inside the main job; 0 where there is none at the moment."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if bake.id.encode() in words and b"python" in words[0]:
                        return int(entry.name)
        return 0

    def environment(self, **more: str) -> dict[str, str]:
        """What a ``neuro-flow`` of the server's owner is started with."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("NEURO", "XDG_"))}
        login = {"token": self.server.token, "cluster": "default", "url": self.server.url}
        passed = base64.b64encode(json.dumps(login).encode()).decode()
        return kept | {"HOME": str(self.home), "NEURO_PASSED_CONFIG": passed} | more

    @contextlib.contextmanager
    def flow(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A ``neuro-flow`` that runs beside; its output is in the file ``shown``."""
        with (self.home / "shown").open("ab") as shown:
            process = subprocess.Popen(
                [sys.executable, "-m", "neuro.flow", *words],
                cwd=self.workspace,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=shown,
                stderr=shown,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()

    @property
    def shown(self) -> str:
        """What all processes of `flow` have shown so far."""
        path = self.home / "shown"
        return path.read_text() if path.exists() else ""

    # What tasks leave behind.

    @property
    def left(self) -> Path:
        """The folder that tasks see as /left; there once the first of them has run."""
        return next((self.server.data_dir / "storage").rglob("left"))

    def open(self, gate: str) -> None:
        """Let those go on that wait `until_open`."""
        (self.left / gate).touch()

    def runs(self) -> dict[str, int]:
        """How often each task has run: how many lines are in the file of its name."""
        return {
            path.name: len(path.read_text().splitlines())
            for path in self.left.iterdir()
            if path.stat().st_size
        }


def statuses(tasks: dict[str, Task]) -> dict[str, str]:
    """How tasks ended, by their ids."""
    return {name: task.status.value for name, task in tasks.items()}


def check_history(tasks: dict[str, Task]) -> None:
    """Every task has been through its states in their order, and never left the last one."""
    for name, task in tasks.items():
        steps = [step.status for step in task.statuses]
        times = [step.created_at for step in task.statuses]
        assert times == sorted(times), (name, times)
        assert [step.is_finished for step in steps] == [False] * (len(steps) - 1) + [True], name


def peak_memory(pid: int) -> int:
    """The most memory that a process has ever had at once, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"process {pid} has no memory")


def cpu_seconds(pid: int) -> float:
    """How much of a processor a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
