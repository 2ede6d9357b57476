"""Who drives a bake is killed, stopped, or not alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.domain.bakes import Attempt
from neuro.flow.batch.submit import restart
from tests.faults.project import HEAD, Project, check_history, statuses, until_open
from tests.server_process import SETTINGS, running_server

# As patient as a test can be.
IMPATIENT = f"""{SETTINGS}
[bakes]
executor_silence = 0.5
grace = 0.5
"""

BATCH = f"""\
{HEAD}
- id: done
  image: ubuntu
  bash: |
    echo x >> /left/done
    echo '::set-output name=text::kept'
- id: busy
  needs: [done]
  strategy:
    matrix:
      x: [1, 2, 3]
  image: ubuntu
  bash: |
    echo x >> /left/busy-${{{{ matrix.x }}}}
    {until_open("gate")}
- id: last
  needs: [busy, done]
  image: ubuntu
  env:
    TEXT: ${{{{ needs.done.outputs.text }}}}
  bash: |
    echo x >> /left/last
    echo "::set-output name=text::$TEXT"
"""
BUSY = ["busy-x-1", "busy-x-2", "busy-x-3"]
ALL = dict.fromkeys(["done", *BUSY, "last"], "succeeded")


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Project]:
    """A project on a server that soon misses who drives a bake from a terminal."""
    with running_server(tmp_path / "data", settings=IMPATIENT) as server:
        yield Project(server, tmp_path)


async def test_a_terminal_is_killed_and_its_bake_begun_again(impatient: Project) -> None:
    project = impatient
    project.write("batch", BATCH)
    with project.flow("bake", "batch", "--name", "ours", "--local-executor") as terminal:
        bake = await project.known("ours")
        await project.reached(bake, *BUSY)
        terminal.kill()

    first = await project.ended(bake)
    assert first.result == "failed"
    assert first.message is not None
    assert "has been silent" in first.message
    assert "`neuro-flow restart`" in first.message
    for job in await project.jobs(bake):
        await project.over(job)
    project.open("gate")

    with project.flow("restart", "ours") as again:
        assert await asyncio.to_thread(again.wait) == 0, project.shown
    second = await project.ended(bake)
    assert (second.number, second.result) == (2, "succeeded")
    tasks = await project.tasks(second)
    assert statuses(tasks) == ALL
    assert tasks["last"].outputs == {"text": "kept"}
    assert project.runs() == {"done": 1, "busy-1": 2, "busy-2": 2, "busy-3": 2, "last": 1}


FAILS_FIRST = f"""\
{HEAD}
- id: kept
  image: ubuntu
  bash: echo x >> /left/kept
- id: fails
  image: ubuntu
  bash: |
    echo x >> /left/fails
    test $(wc -l < /left/fails) -gt 1
    {until_open("gate")}
"""


async def test_of_many_restarts_at_one_moment_one_is_made(project: Project) -> None:
    project.write("batch", FAILS_FIRST)
    bake, _ = await project.bake("batch", "ours")
    assert (await project.ended(bake)).result == "failed"

    async with project.connect() as client:
        calls = [restart(client, bake, 1, True) for _ in range(8)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        made = [answer for answer in answers if isinstance(answer, Attempt)]
        refused = [str(answer) for answer in answers if not isinstance(answer, Attempt)]
        attempts = await client.bakes.attempts(bake.id)

    assert [attempt.number for attempt in made] == [2]
    assert [attempt.number for attempt in attempts] == [1, 2]
    quicker = "Attempt #2 of ours was started by somebody else a moment ago."
    assert refused == [quicker] * 7


async def test_of_two_who_restart_a_bake_one_is_told_of_the_other(project: Project) -> None:
    project.write("batch", FAILS_FIRST)
    bake, _ = await project.bake("batch", "ours")
    assert (await project.ended(bake)).result == "failed"

    with project.flow("restart", "ours") as one, project.flow("restart", "ours") as other:
        # The one that is told ends at once, the other one once its bake has ended.
        loser, winner = await first_to_end(one, other)
        assert winner.poll() is None, project.shown
        await project.reached(bake, "fails")
        project.open("gate")
        assert await asyncio.to_thread(winner.wait) == 0, project.shown

    # Whether it saw what the other one had made, or wanted to make the same.
    assert loser.returncode == 1
    assert "Usage:" not in project.shown
    assert re.search(r"ERROR: Attempt #2 of ours (is|was started by somebody else)", project.shown)
    async with project.connect() as client:
        attempts = await client.bakes.attempts(bake.id)
    assert [attempt.result for attempt in attempts] == ["failed", "succeeded"]
    assert project.runs() == {"kept": 1, "fails": 2}


async def first_to_end(
    one: subprocess.Popen[bytes], other: subprocess.Popen[bytes]
) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
    """Of two processes the one that ends first, and the other."""
    waits = {asyncio.create_task(asyncio.to_thread(p.wait)): p for p in (one, other)}
    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    ended = waits[next(iter(done))]
    return ended, other if ended is one else one


async def test_two_executors_of_one_attempt_do_no_harm(project: Project) -> None:
    project.write("batch", BATCH)
    bake, attempt = await project.submit("batch")
    # Nobody has told either of them of the other.
    with project.flow("execute", bake.id) as one, project.flow("execute", bake.id) as other:
        await project.reached(bake, *BUSY)
        project.open("gate")
        assert await asyncio.to_thread(one.wait) == 0, project.shown
        assert await asyncio.to_thread(other.wait) == 0, project.shown

    await check(project, attempt)
    assert len(await project.jobs(bake)) == len(ALL)


async def test_an_executor_beside_the_main_job_leaves_the_bake_to_it(project: Project) -> None:
    project.write("batch", BATCH)
    bake, attempt = await project.bake("batch")
    await project.reached(bake, *BUSY)

    with project.flow("execute", bake.id) as other:
        await asyncio.to_thread(other.wait)
    assert "drives the bake" in project.shown
    project.open("gate")

    assert (await project.ended(bake)).result == "succeeded"
    await check(project, attempt)


async def test_an_executor_that_was_frozen_finds_its_work_done(project: Project) -> None:
    project.write("batch", BATCH)
    bake, attempt = await project.submit("batch")
    with project.flow("execute", bake.id) as frozen:
        await project.reached(bake, *BUSY)
        os.kill(frozen.pid, signal.SIGSTOP)
        # Those that it waits for end, and another executor does what follows.
        with project.flow("execute", bake.id) as other:
            project.open("gate")
            assert await asyncio.to_thread(other.wait) == 0, project.shown
        assert (await project.ended(bake)).result == "succeeded"
        before = await project.tasks(attempt)

        os.kill(frozen.pid, signal.SIGCONT)
        assert await asyncio.to_thread(frozen.wait) == 0, project.shown

    await check(project, attempt)
    assert await project.tasks(attempt) == before
    assert len(await project.jobs(bake)) == len(ALL)


async def check(project: Project, attempt: Attempt) -> None:
    """Hold a bake of `BATCH` that is over to what it should have done."""
    tasks = await project.tasks(attempt)
    assert statuses(tasks) == ALL
    check_history(tasks)
    assert tasks["last"].outputs == {"text": "kept"}
    assert project.runs() == dict.fromkeys(["done", "busy-1", "busy-2", "busy-3", "last"], 1)
