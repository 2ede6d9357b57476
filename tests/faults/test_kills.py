"""``kill -9`` of the executor, of the server and of both, at random moments of a bake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from neuro.flow.batch.plan import make_plan
from neuro.flow.batch.submit import submit

from neuro.client import Client
from neuro.domain.bakes import Attempt, Bake, Task
from neuro.domain.jobs import JobFilter
from neuro.flow.evaluate.environment import Environment
from neuro.flow.project import find_workspace
from tests.faults import many
from tests.server_process import SETTINGS, ServerProcess, running_server

KILLS = 100
VICTIMS = ("executor", "server", "both")


class Bakes:
    """Starts bakes of the workspace on a server that may be away."""

    def __init__(self, server: ServerProcess, workspace: Path) -> None:
        self.server = server
        self.workspace = workspace

    def connect(self) -> Client:
        return Client.connect(self.server.url, self.server.token)

    async def start(self, name: str) -> tuple[Bake, Attempt]:
        """A bake whose main job has been asked for."""
        environment = Environment(
            user=self.server.user, cwd=self.workspace, cache_dir=self.workspace / "cache"
        )
        plan = make_plan(find_workspace(self.workspace), "many", {"run": name}, environment)
        async with self.connect() as client:
            bake, attempt = await submit(client, plan, name=name, tags=())
            await client.bakes.start_executor(attempt.id)
        return bake, attempt

    async def tasks(self, attempt: Attempt) -> dict[str, Task]:
        async with self.connect() as client:
            return {task.yaml_id: task for task in await client.bakes.tasks(attempt.id)}

    async def jobs(self, bake: Bake) -> int:
        """How many jobs its tasks have had."""
        query = JobFilter(tag=[f"bake_id:{bake.id}"])
        async with self.connect() as client:
            return len(
                [job async for job in client.jobs.list(query) if "remote_executor" not in job.tags]
            )

    async def changes(self, bake: Bake) -> AsyncIterator[Attempt | None]:
        """The attempt where it has changed; None for a change of a task."""
        async with self.connect() as client:
            is_new = False
            async for event in client.bakes.events(bake.id):
                if event.attempt is not None:
                    yield event.attempt
                elif is_new and event.task is not None:
                    yield None
                is_new = is_new or event.synced


async def disturb(bakes: Bakes, bake: Bake, chance: random.Random) -> int:
    """Kill things until the bake is over; returns how often."""
    kills = 0
    while True:
        changes_left = chance.randint(1, 8)
        async with contextlib.aclosing(bakes.changes(bake)) as changes:
            async for attempt in changes:
                if attempt is not None and attempt.result.is_finished:
                    return kills
                changes_left -= attempt is None
                if changes_left <= 0:
                    break
        # Anywhere within what follows a change, not only right behind it.
        await asyncio.sleep(chance.random() * 0.05)
        victim = chance.choice(VICTIMS)
        if victim != "server":
            kill_executor(bake)
        if victim != "executor":
            bakes.server.kill()
            bakes.server.start()
        kills += 1


def kill_executor(bake: Bake) -> None:
    """End the process inside the main job, if it is there at the moment."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if bake.id.encode() in words and b"python" in words[0]:
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_task_ends_as_it_should_and_runs_as_often_as_it_should(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("NEURO_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"NEURO_TEST_SEED={seed}")
    chance = random.Random(seed)
    workspace = many.write(tmp_path)
    with running_server(tmp_path / "data", settings=SETTINGS) as server:
        bakes = Bakes(server, workspace)
        kills, rounds = 0, 0
        while kills < KILLS:
            rounds += 1
            name = f"round_{rounds}"
            bake, attempt = await bakes.start(name)
            kills += await disturb(bakes, bake, chance)
            await check(bakes, bake, attempt, tmp_path / "data" / "storage", rounds)
    print(f"{kills} kills in {rounds} bakes")


async def check(
    bakes: Bakes, bake: Bake, attempt: Attempt, storage: Path, round_number: int
) -> None:
    """Hold a bake that is over to what it should have done."""
    tasks = await bakes.tasks(attempt)
    async with bakes.connect() as client:
        ended = await client.bakes.get_attempt(attempt.id)
    assert ended.result == "failed", ended.message  # rows that may fail the bake have failed
    wanted = many.expected()
    assert {name: task.status.value for name, task in tasks.items()} == {
        **{name: one.status for name, one in wanted.items()},
        **dict.fromkeys(many.CACHED, "succeeded" if round_number == 1 else "cached"),
    }
    for name, one in wanted.items():
        if one.outputs is not None:
            assert tasks[name].outputs == one.outputs, name
    for name, outputs in many.CACHED.items():
        assert tasks[name].outputs == outputs
    left = next(storage.rglob(f"many/{bake.name}"))
    ran = {
        name: len(path.read_text().splitlines())
        for name in wanted
        if (path := left / many.left_by(name)).exists()
    }
    assert ran == {name: one.runs for name, one in wanted.items() if one.runs}
    kept = left.parent / "kept"
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        str(x): "x\n" for x in range(len(many.CACHED))
    }
    runs = sum(one.runs for one in wanted.values())
    assert await bakes.jobs(bake) == runs + (len(many.CACHED) if round_number == 1 else 0)
    assert (left / "post").read_text() == "secret\n"
