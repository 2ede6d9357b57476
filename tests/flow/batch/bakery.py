"""Real bakes: a server, a project, executors in this process and in others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

from neuro.client import Client
from neuro.client.asyncio_http import AsyncioTransport
from neuro.domain.bakes import Attempt, Bake, Task, TaskStatus
from neuro.domain.errors import PlatformError
from neuro.flow.batch.executor import drive
from neuro.flow.batch.plan import Plan, make_plan
from neuro.flow.batch.submit import submit
from neuro.flow.evaluate.environment import Environment
from neuro.flow.workspace import find_workspace
from tests.server_process import ServerProcess

_DRIVE = """
import asyncio, sys
from neuro.client import Client
from neuro.client.asyncio_http import AsyncioTransport
from neuro.flow.batch.executor import drive

async def main(url, token, user, bake):
    transport = AsyncioTransport(url, token)
    async with Client(transport, user=user) as client:
        print(await drive(client, bake, executor_id=None, log=lambda line: None))

asyncio.run(main(*sys.argv[1:]))
"""


def ignore(line: str) -> None:
    """Where an executor's lines do not matter."""


class Bakery:
    """A project on a server. A task waits for ``open_gate`` with the command ``WAIT``."""

    WAIT = "until [ -e /gate/NAME ]; do sleep 0.02; done"

    def __init__(
        self, client: Client, server: ServerProcess, folder: Path, token: str | None = None
    ) -> None:
        """``token`` is the client's, by default that of the server's owner."""
        self.client = client
        self.token = token or server.token
        self.server = server
        self.folder = folder
        self.lines: list[str] = []

    @classmethod
    @asynccontextmanager
    async def at(cls, server: ServerProcess, folder: Path) -> AsyncIterator[Bakery]:
        (folder / ".neuro").mkdir(parents=True, exist_ok=True)
        # What an executor has.
        transport = AsyncioTransport(server.url, server.token)
        async with Client(transport, user=server.user) as client:
            bakery = cls(client, server, folder)
            await client.storage.mkdir(f"storage:{folder.name}", parents=True, exist_ok=True)
            yield bakery

    def plan(self, text: str, files: Mapping[str, str] | None = None) -> Plan:
        """Plan a batch of this text, with other files of the project."""
        for name, content in {**(files or {}), ".neuro/batch.yml": text}.items():
            (self.folder / name).write_text(content)
        environment = Environment(self.server.user, self.folder, self.folder / "cache")
        return make_plan(find_workspace(self.folder), "batch", {}, environment)

    async def submit(
        self, text: str, *, files: Mapping[str, str] | None = None, name: str | None = None
    ) -> tuple[Bake, Attempt]:
        """Keep a bake on the server."""
        plan = self.plan(text, files)
        # As a person does it: an executor's connection sends no contexts of images.
        async with Client.connect(self.server.url, self.token) as client:
            client.user, client.cluster = self.client.user, self.client.cluster
            return await submit(client, plan, name=name, tags=[])

    async def drive(self, bake: Bake, executor_id: str | None = None) -> TaskStatus:
        """Drive its last attempt in this process."""
        return await drive(self.client, bake.id, executor_id=executor_id, log=self.lines.append)

    async def bake(self, text: str, **options: Mapping[str, str]) -> dict[str, Task]:
        """Submit and drive; the tasks by their ids."""
        bake, attempt = await self.submit(text, **options)  # type: ignore[arg-type]
        await self.drive(bake)
        return await self.tasks(attempt)

    async def tasks(self, attempt: Attempt) -> dict[str, Task]:
        return {task.yaml_id: task for task in await self.client.bakes.tasks(attempt.id)}

    async def result(self, attempt: Attempt) -> TaskStatus:
        return (await self.client.bakes.get_attempt(attempt.id)).result

    async def until(self, bake: Bake, seen: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        """Wait until the statuses of the last attempt's tasks are as wanted."""
        statuses: dict[str, str] = {}
        while True:
            stream = self.client.bakes.events(bake.id)
            with suppress(PlatformError):
                async with aclosing(stream) as events:
                    async for event in events:
                        if event.task is not None:
                            statuses[event.task.yaml_id] = event.task.status.value
                        if seen(statuses):
                            return statuses
            # The server is away, and comes back.
            await asyncio.sleep(0.05)

    def in_process(self, bake: Bake) -> subprocess.Popen[bytes]:
        """An executor that can be killed."""
        server = self.server
        command = [sys.executable, "-c", _DRIVE, server.url, server.token, server.user, bake.id]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    @property
    def gate(self) -> Path:
        """A folder of the storage, as this machine sees it."""
        return self.server.data_dir / "storage" / self.server.user / self.folder.name

    def open_gate(self, name: str) -> None:
        """Let tasks go on that wait."""
        (self.gate / name).touch()

    def waits(self, name: str) -> str:
        """The lines of a task that waits for a gate."""
        wait = self.WAIT.replace("NAME", name)
        return f"  volumes: [storage:{self.folder.name}:/gate:ro]\n  bash: {wait}"

    async def jobs(self, bake: Bake) -> list[str]:
        """The ids of all jobs that a bake has had, those of tasks."""
        found: list[str] = []
        async with aclosing(self.client.jobs.events(tags=[f"bake_id:{bake.id}"])) as events:
            async for event in events:
                if event.synced:
                    break
                if event.job is not None and "remote_executor" not in event.job.tags:
                    found.append(event.job.id)
        return found
