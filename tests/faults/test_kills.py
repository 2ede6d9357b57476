"""``kill -9`` of the executor, of the server and of both, at random moments of a bake."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import pytest

from neuro.domain.bakes import Attempt, Bake, Task
from tests.faults import many
from tests.faults.project import Project, check_history
from tests.server_process import SETTINGS, running_server

KILLS = int(os.environ.get("NEURO_TEST_KILLS", "20"))
# What was killed on purpose need not be waited for.
HASTY = f"""{SETTINGS}
[bakes]
restart_pause = 0.02
"""
VICTIMS = ("executor", "server", "both")


async def disturb(project: Project, bake: Bake, chance: random.Random) -> int:
    """Kill things until the bake is over; returns how often."""
    kills = 0
    while True:
        changes_left = chance.randint(1, 8)
        async with contextlib.aclosing(project.changes(bake)) as changes:
            async for is_new, change in changes:
                if isinstance(change, Attempt) and change.result.is_finished:
                    return kills
                changes_left -= is_new and isinstance(change, Task)
                if changes_left <= 0:
                    break
        # Anywhere within what follows a change, not only right behind it.
        await asyncio.sleep(chance.random() * 0.05)
        victim = chance.choice(VICTIMS)
        if victim != "server":
            executor = project.executor_of(bake)
            with contextlib.suppress(ProcessLookupError):
                if executor:
                    os.kill(executor, signal.SIGKILL)
        if victim != "executor":
            project.server.kill()
            project.server.start()
        kills += 1


@pytest.mark.slow
@pytest.mark.timeout(60 + 8 * KILLS)
async def test_every_task_ends_as_it_should_and_runs_as_often_as_it_should(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("NEURO_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"NEURO_TEST_SEED={seed}")
    chance = random.Random(seed)
    with running_server(tmp_path / "data", settings=HASTY) as server:
        project = Project(server, tmp_path)
        many.write(project.workspace)
        kills, rounds = 0, 0
        while kills < KILLS:
            rounds += 1
            name = f"round_{rounds}"
            bake, attempt = await project.bake("many", name, run=name)
            kills += await disturb(project, bake, chance)
            await check(project, bake, attempt, rounds)
    print(f"{kills} kills in {rounds} bakes")


async def check(project: Project, bake: Bake, attempt: Attempt, round_number: int) -> None:
    """Hold a bake that is over to what it should have done."""
    ended = await project.ended(bake)
    assert ended.result == "failed", ended.message  # rows that may fail the bake have failed
    tasks = await project.tasks(attempt)
    check_history(tasks)
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
    left = next((project.server.data_dir / "storage").rglob(f"many/{bake.name}"))
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
    runs += len(many.CACHED) if round_number == 1 else 0
    assert len(await project.jobs(bake)) == runs
    assert (left / "post").read_text() == "secret\n"
