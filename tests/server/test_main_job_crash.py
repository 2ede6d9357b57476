"""A main job that is killed with ``kill -9``: the next one goes on, and no task runs twice."""

from __future__ import annotations

from collections.abc import Iterator
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
from neuro.domain.jobs import JobFilter
from tests.server.bakes import ended, event_of
from tests.server_process import SETTINGS, ServerProcess, running_server

TASKS = ("first", "second", "third")
FLOW = "kind: batch\ntasks:\n" + "".join(
    f"  - id: {name}\n    image: ubuntu\n    bash: sleep 1; echo {name}\n" for name in TASKS
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    settings = SETTINGS + "\n[bakes]\nrestart_pause = 0.05\n"
    with running_server(tmp_path / "data", settings=settings) as server:
        yield server


async def _bake(client: Client) -> str:
    """Three tasks, one after the other, of which the main job is started."""
    project = await client.flows.create_project("chain")
    bake = await client.bakes.create(
        BakeRequest(
            project_id=project.id,
            batch="train",
            graphs={"": {"first": [], "second": ["first"], "third": ["second"]}},
        )
    )
    file = await client.bakes.add_file(
        ConfigFileRequest(bake_id=bake.id, filename="/w/.neuro/train.yml", content=FLOW)
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
        bake_id = await _bake(client)

        for name in TASKS[:2]:

            def runs(event: BakeEvent, name: str = name) -> bool:
                task = event.task
                return bool(task and task.yaml_id == name and task.status is TaskStatus.RUNNING)

            await event_of(client, bake_id, runs)
            _kill_executor(bake_id)

        last = await ended(client, bake_id)
        jobs = [job async for job in client.jobs.list(JobFilter(tag=[f"bake_id:{bake_id}"]))]

    assert last.result is TaskStatus.SUCCEEDED
    mains = [job for job in jobs if "remote_executor" in job.tags]
    assert len(mains) == 3
    assert mains[-1].id == last.executor_id
    tasks = [tag for job in jobs if job not in mains for tag in job.tags if tag[:5] == "task:"]
    assert tasks == [f"task:{name}" for name in TASKS]
