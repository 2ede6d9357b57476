"""A main job that is killed with ``kill -9``: the next one goes on, and no task runs twice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from neuro.client import Client
from neuro.domain.bakes import (
    AttemptRequest,
    BakeEvent,
    BakeRequest,
    ConfigFileRequest,
    ConfigsMeta,
    TaskStatus,
)
from neuro.domain.jobs import JobFilter, JobStatus
from tests.server.bakes import ended, event_of, until
from tests.server.jobs import finished
from tests.server_process import SETTINGS, ServerProcess, running_server

TASKS = ("first", "second", "third")


def _flow(seconds: float) -> str:
    tasks = (
        f"  - id: {name}\n    image: ubuntu\n    bash: sleep {seconds}; echo {name}\n"
        for name in TASKS
    )
    return "kind: batch\ntasks:\n" + "".join(tasks)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    settings = SETTINGS + "\n[bakes]\nrestart_pause = 0.05\nrestarts = 3\n"
    with running_server(tmp_path / "data", settings=settings) as server:
        yield server


async def _bake(client: Client, seconds: float) -> str:
    """Three tasks of so many seconds, one after the other, of which the main job is started."""
    project = await client.flows.create_project("chain")
    bake = await client.bakes.create(
        BakeRequest(
            project_id=project.id,
            batch="train",
            graphs={"": {"first": [], "second": ["first"], "third": ["second"]}},
        )
    )
    file = await client.bakes.add_file(
        ConfigFileRequest(bake_id=bake.id, filename="/w/.neuro/train.yml", content=_flow(seconds))
    )
    attempt = await client.bakes.create_attempt(
        AttemptRequest(
            bake_id=bake.id,
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=ConfigsMeta(workspace="/w", flow_config_id=file.id),
        )
    )
    await client.bakes.start_executor(attempt.id)
    return bake.id


def _kill_executor(bake_id: str) -> None:
    """``kill -9`` of every process that runs ``neuro-flow execute`` for this bake."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[-2:] == ["execute", bake_id]:
            process.kill()


async def test_the_next_main_job_goes_on(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        bake_id = await _bake(client, 1)

        for name in TASKS[:2]:
            await event_of(client, bake_id, partial(_is_running, name=name))
            _kill_executor(bake_id)

        last = await ended(client, bake_id)
        jobs = [job async for job in client.jobs.list(JobFilter(tag=[f"bake_id:{bake_id}"]))]

    assert last.result is TaskStatus.SUCCEEDED
    mains = [job for job in jobs if "remote_executor" in job.tags]
    assert len(mains) == 3
    assert mains[-1].id == last.executor_id
    tasks = [tag for job in jobs if job not in mains for tag in job.tags if tag[:5] == "task:"]
    assert tasks == [f"task:{name}" for name in TASKS]


async def test_main_jobs_that_die_without_getting_on_are_given_up(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        bake_id = await _bake(client, 1000)
        await event_of(client, bake_id, lambda event: _is_running(event, "first"))
        mains: list[str] = []

        for _ in range(3):
            attempt = await until(client, bake_id, lambda it: it.executor_id not in mains)
            assert attempt.executor_id is not None
            mains.append(attempt.executor_id)
            async for _ in client.jobs.logs(attempt.executor_id):
                break  # It is at work: it has said something.
            _kill_executor(bake_id)

        last = await ended(client, bake_id)
        jobs = [job async for job in client.jobs.list(JobFilter(tag=[f"bake_id:{bake_id}"]))]
        task = next(job for job in jobs if job.id not in mains)
        task = await finished(client, task)

    assert last.result is TaskStatus.FAILED
    assert last.message is not None
    assert last.message.startswith("Its main job died 3 times without progress")
    assert sorted(job.id for job in jobs) == sorted([*mains, task.id])
    assert task.status is JobStatus.CANCELLED


def _is_running(event: BakeEvent, name: str) -> bool:
    task = event.task
    return bool(task and task.yaml_id == name and task.status is TaskStatus.RUNNING)
