"""The clock of the machine is set, by an hour, while a bake runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuro.domain.bakes import Bake, BakeFilter
from tests.faults.conftest import Clock
from tests.faults.project import HEAD, Project, check_history, statuses, until_open
from tests.server_process import SETTINGS, ServerProcess, running_server

pytestmark = pytest.mark.compiler

HOUR = timedelta(hours=1)
# What takes longer than this has waited for an hour that was not there.
LONGEST_SECONDS = 20.0


@pytest.fixture
def server(clock: Clock, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose clock can be set."""
    settings = SETTINGS.replace("stop_grace_seconds = 2", "stop_grace_seconds = 0.2")
    with running_server(tmp_path / "data", settings=settings) as server:
        yield server


BATCH = f"""\
life_span: 30m
{HEAD}
- id: patient
  needs: []
  timeout: 30m
  life_span: 30m
  image: ubuntu
  bash: |
    echo x >> /left/patient
    {until_open("gate")}
- id: endless
  needs: []
  timeout: 3s
  continue_on_error: true
  image: ubuntu
  bash: |
    echo x >> /left/endless
    sleep 1000
- id: again
  needs: []
  retry: {{attempts: 3, delay: 0.5}}
  image: ubuntu
  bash: |
    echo x >> /left/again
    {until_open("gate")}
    test $(wc -l < /left/again) -eq 3
- id: after
  needs: [patient, endless, again]
  timeout: 30m
  image: ubuntu
  bash: |
    echo x >> /left/after
    {until_open("second")}
- id: last
  needs: [after]
  timeout: 1s
  continue_on_error: true
  image: ubuntu
  bash: |
    echo x >> /left/last
    sleep 1000
"""


@pytest.mark.parametrize("step", [HOUR, -HOUR], ids=["forward", "back"])
async def test_no_task_ends_early_or_waits_for_the_hour(
    server: ServerProcess, clock: Clock, tmp_path: Path, step: timedelta
) -> None:
    project = Project(server, tmp_path)
    project.write("batch", BATCH)
    bake, attempt = await project.submit("batch")
    with project.flow("execute", bake.id) as executor:
        await project.reached(bake, "patient", "endless", "again")
        began = time.monotonic()
        clock(step)
        project.open("gate")
        await project.reached(bake, "after")
        clock(timedelta())
        project.open("second")
        assert await asyncio.to_thread(executor.wait) == 0, project.shown
        took = time.monotonic() - began

    tasks = await project.tasks(attempt)
    assert statuses(tasks) == {
        "patient": "succeeded",
        "endless": "failed",
        "again": "succeeded",
        "after": "succeeded",
        "last": "failed",
    }, project.shown
    assert tasks["endless"].message == "timed out after 3s; it may fail"
    assert tasks["last"].message == "timed out after 1s; it may fail"
    check_history(tasks)
    assert project.runs() == {"patient": 1, "endless": 1, "again": 3, "after": 1, "last": 1}
    # Three seconds for the one, two pauses for the other, and a second for the last.
    assert 3.0 < took < LONGEST_SECONDS


TIMED = f"""\
schedule:
  cron: "* * * * *"
  catch_up: last
{HEAD}
- id: only
  image: ubuntu
  bash: echo x >> /left/only
"""


async def test_a_schedule_starts_nothing_twice_and_loses_no_time(
    server: ServerProcess, clock: Clock, tmp_path: Path
) -> None:
    project = Project(server, tmp_path)
    project.write("timed", TIMED)

    def restart_at(seconds: float, by: timedelta = timedelta()) -> None:
        """Start the server again so many seconds behind the minute that was real at first."""
        server.kill()
        clock(minute + timedelta(seconds=seconds) + by - datetime.now(UTC))
        server.start()

    # Far from the end of a minute all that happens here stays within one.
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    restart_at(10)
    with project.flow("schedule", "timed") as command:
        assert await asyncio.to_thread(command.wait) == 0, project.shown
    restart_at(59)
    first = await started(project, 1)

    # The minutes that come again are over and done with.
    restart_at(70, -HOUR)
    restart_at(119)
    second = await started(project, 2)

    # Of the sixty that are skipped the last is made up for.
    restart_at(130, HOUR)
    third = await started(project, 3)

    assert [bake.id for bake in third[:2]] == [bake.id for bake in second]
    assert second[0].id == first[0].id
    begun = [bake.created_at.replace(second=0, microsecond=0) - minute for bake in third]
    assert begun == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=2) + HOUR]
    assert project.runs() == {"only": 3}


async def started(project: Project, count: int) -> list[Bake]:
    """The bakes of the project once there are so many; all of them have ended."""
    async with project.connect() as client:
        (found,) = await client.flows.projects()
        while True:
            bakes = await client.bakes.list(BakeFilter(project_id=found.id))
            if len(bakes) >= count:
                break
            await asyncio.sleep(0.05)
    assert len(bakes) == count
    for bake in bakes:
        assert (await project.ended(bake)).result == "succeeded"
    return bakes
