"""What a bake stands on goes away in its middle: the server, its database, space on the disk."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuro.domain.bakes import Attempt, Bake
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import JobRequest
from tests.disks import fill
from tests.faults.project import (
    HEAD,
    Project,
    check_history,
    cpu_seconds,
    statuses,
    until_open,
)
from tests.postgres import PostgresServer
from tests.server_process import SETTINGS, ServerProcess, running_server

# Rows that wait for a gate, rows that wait for another after them, and a chain behind those.
BATCH = f"""\
{HEAD}
- id: first
  needs: []
  strategy:
    matrix:
      x: [1, 2, 3, 4]
  image: ubuntu
  bash: |
    echo x >> /left/first-${{{{ matrix.x }}}}
    {until_open("one")}
    echo '::set-output name=x::${{{{ matrix.x }}}}'
- id: second
  needs: [first]
  retry: {{attempts: 2, delay: 0.05}}
  strategy:
    matrix:
      x: [1, 2, 3, 4]
  image: ubuntu
  env:
    FIRST: ${{{{ to_json(needs.first.outputs.x) }}}}
  bash: |
    echo x >> /left/second-${{{{ matrix.x }}}}
    {until_open("two")}
    test $(wc -l < /left/second-${{{{ matrix.x }}}}) -eq 2 || exit 1
    echo "::set-output name=all::$FIRST"
- id: third
  needs: [second]
  image: ubuntu
  env:
    ALL: ${{{{ to_json(needs.second.outputs.all) }}}}
  bash: |
    echo x >> /left/third
    echo "::set-output name=all::$ALL"
"""
FIRST = [f"first-x-{x}" for x in range(1, 5)]
ALL = '["1", "2", "3", "4"]'
SECOND = [f"second-x-{x}" for x in range(1, 5)]


async def check(project: Project, bake: Bake, attempt: Attempt) -> None:
    """Hold a bake of `BATCH` that is over to what it should have done."""
    tasks = await project.tasks(attempt)
    assert statuses(tasks) == dict.fromkeys([*FIRST, *SECOND, "third"], "succeeded")
    check_history(tasks)
    for x, name in enumerate(FIRST, 1):
        assert tasks[name].outputs == {"x": str(x)}
    for name in SECOND:
        assert tasks[name].outputs == {"all": ALL}
    assert tasks["third"].outputs == {"all": json.dumps([ALL] * 4)}
    runs = {f"first-{x}": 1 for x in range(1, 5)} | {f"second-{x}": 2 for x in range(1, 5)}
    assert project.runs() == runs | {"third": 1}
    assert len(await project.jobs(bake)) == sum(runs.values()) + 1


@pytest.mark.postgres
async def test_the_database_crashes(tmp_path: Path) -> None:
    # What it has said is kept: that is what the crash is about.
    with (
        PostgresServer(synchronous_commit="on") as postgres,
        postgres.database() as url,
        running_server(tmp_path / "data", database=url) as server,
    ):
        project = Project(server, tmp_path)
        project.write("batch", BATCH)
        bake, attempt = await project.bake("batch")
        await project.reached(bake, *FIRST)

        # All of the first rows end while there is no database.
        postgres.crash()
        project.open("one")
        await until_refused(project)
        postgres.start()

        # Another time in the middle of all that follows; the tries of the second rows that fail.
        await project.reached(bake, *SECOND)
        project.open("two")
        postgres.crash()
        postgres.start()

        assert (await project.ended(bake)).result == "succeeded"
        await check(project, bake, attempt)


async def until_refused(project: Project) -> None:
    """Wait until the server says that it cannot write."""
    async with project.connect() as client:
        while True:
            try:
                await client.jobs.submit(JobRequest(image="ubuntu", command="true"))
            except PlatformError:
                return


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server whose data folder is a disk of 48 MiB."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        with running_server(folder) as server:
            yield server
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# What `BATCH` has, with outputs that are large, and a task that is to be ended meanwhile.
FULL = f"""\
{HEAD}
- id: speaks
  needs: []
  strategy:
    matrix:
      x: [1, 2, 3, 4]
  image: ubuntu
  bash: |
    echo x >> /left/speaks-${{{{ matrix.x }}}}
    {until_open("one")}
    echo '::set-output name=first::${{{{ matrix.x }}}}'
    head -c 500K /dev/zero | tr '\\0' a | sed 's/^/::set-output name=large::/'
    echo
    echo '::set-output name=last::${{{{ matrix.x }}}}'
- id: late
  needs: []
  timeout: 2s
  continue_on_error: true
  image: ubuntu
  bash: |
    echo x >> /left/late
    sleep 1000
- id: after
  needs: [speaks, late]
  image: ubuntu
  env:
    FIRST: ${{{{ to_json(needs.speaks.outputs.first) }}}}
    LAST: ${{{{ to_json(needs.speaks.outputs.last) }}}}
  bash: |
    echo x >> /left/after
    echo "::set-output name=all::$FIRST $LAST"
"""


@pytest.mark.root
async def test_the_disk_is_full_for_a_while(small_disk: ServerProcess, tmp_path: Path) -> None:
    project = Project(small_disk, tmp_path)
    project.write("full", FULL)
    bake, attempt = await project.submit("full")
    with project.flow("execute", bake.id) as executor:
        await project.reached(bake, *(f"speaks-x-{x}" for x in range(1, 5)), "late")

        filler = fill(small_disk.data_dir)
        project.open("one")  # a name needs no space
        # The end of the late task is there, and cannot be written.
        while "cannot write jobs" not in small_disk.log():
            assert executor.poll() is None, project.shown
            await asyncio.sleep(0.02)
        filler.unlink()

        assert (await project.ended(bake)).result == "succeeded"
        assert executor.wait() == 0
    tasks = await project.tasks(attempt)
    assert statuses(tasks) == {
        **{f"speaks-x-{x}": "succeeded" for x in range(1, 5)},
        "late": "failed",
        "after": "succeeded",
    }
    check_history(tasks)
    for x in range(1, 5):
        outputs = tasks[f"speaks-x-{x}"].outputs
        assert outputs == {"first": str(x), "large": "a" * (500 << 10), "last": str(x)}
    assert tasks["after"].outputs == {"all": '["1", "2", "3", "4"] ["1", "2", "3", "4"]'}
    runs = {f"speaks-{x}": 1 for x in range(1, 5)} | {"late": 1, "after": 1}
    assert project.runs() == runs


AWAY_SECONDS = 4.0
MOST_CPU_SECONDS = 0.5


async def test_the_server_is_away_for_a_while(project: Project) -> None:
    project.write("batch", BATCH)
    bake, attempt = await project.bake("batch")
    await project.reached(bake, *FIRST)
    executor = project.executor_of(bake)

    assert project.server.stop() == 0
    used = cpu_seconds(executor)
    project.open("one")
    # The time itself is what the executor has to stand.
    await asyncio.sleep(AWAY_SECONDS)
    used = cpu_seconds(executor) - used
    project.server.start()
    await project.reached(bake, *SECOND)
    assert project.executor_of(bake) == executor
    project.open("two")

    assert (await project.ended(bake)).result == "succeeded"
    await check(project, bake, attempt)
    assert used < MOST_CPU_SECONDS


# Any main job that counts as dead ends its bake.
ONE_LIFE = f"""{SETTINGS.replace("stop_grace_seconds = 2", "stop_grace_seconds = 0.2")}
[bakes]
restarts = 1
"""


async def test_the_server_comes_back_at_another_port(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "data", settings=ONE_LIFE) as server,
        socket.socket() as taken,
    ):
        project = Project(server, tmp_path)
        project.write("batch", BATCH)
        bake, attempt = await project.bake("batch")
        await project.reached(bake, *FIRST)
        port, executor = server.port, project.executor_of(bake)

        assert server.stop() == 0
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))  # so that it is not chosen again
        project.open("one")
        server.port = 0
        server.start()
        assert server.port != port
        await project.reached(bake, *SECOND)
        assert project.executor_of(bake) not in (0, executor)

        # Where it was before, it is found.
        server.kill()
        server.start()
        project.open("two")

        assert (await project.ended(bake)).result == "succeeded"
        await check(project, bake, attempt)
        ends = [(job.status, job.history.reason) for job in await project.executors(bake)]
        assert ends == [("cancelled", "AddressChanged"), ("succeeded", "Completed")]
