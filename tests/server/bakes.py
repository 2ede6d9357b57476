"""What tests do with bakes: making them, and waiting for what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from neuro.client import Client
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeEvent,
    BakeMeta,
    BakeRequest,
    ConfigFileRequest,
    ConfigsMeta,
    TaskStatus,
)
from neuro.domain.jobs import Job
from tests.server.jobs import submit


async def make_bake(
    client: Client,
    project_id: str,
    *,
    batch: str = "train",
    name: str | None = None,
    meta: BakeMeta | None = None,
) -> tuple[Bake, Attempt]:
    """A bake of one task with its first attempt, as a client submits them."""
    request = BakeRequest(
        project_id=project_id,
        batch=batch,
        name=name,
        graphs={"": {"only": []}},
        meta=meta or BakeMeta(),
    )
    bake = await client.bakes.create(request)
    file = await client.bakes.add_file(
        ConfigFileRequest(bake_id=bake.id, filename="/w/.neuro/train.yml", content="kind: batch")
    )
    attempt = await client.bakes.create_attempt(
        AttemptRequest(
            bake_id=bake.id,
            number=1,
            result=TaskStatus.PENDING,
            configs_meta=ConfigsMeta(workspace="/w", flow_config_id=file.id),
        )
    )
    return bake, attempt


async def write(
    client: Client, attempt: Attempt, result: TaskStatus, executor_id: str | None = None
) -> Attempt:
    """Change an attempt as its executor or its user does."""
    return await client.bakes.replace_attempt(
        AttemptRequest(
            bake_id=attempt.bake_id,
            number=attempt.number,
            result=result,
            configs_meta=attempt.configs_meta,
            executor_id=executor_id,
        )
    )


async def task_job(client: Client, bake: Bake, command: str = "sleep 1000") -> Job:
    """A job as tasks of a bake have it."""
    return await submit(client, command, tags=[f"bake_id:{bake.id}", "task:only"])


async def event_of(
    client: Client, bake_id: str, holds: Callable[[BakeEvent], bool], attempt: int = -1
) -> BakeEvent:
    """The first event of a bake for which ``holds`` is true."""
    async with aclosing(client.bakes.events(bake_id, attempt)) as events:
        async for event in events:
            if holds(event):
                return event
    raise AssertionError("the events of the bake have ended")


async def until(
    client: Client, bake_id: str, holds: Callable[[Attempt], bool], attempt: int = -1
) -> Attempt:
    """A bake's attempt as soon as ``holds`` is true of it."""
    event = await event_of(
        client, bake_id, lambda event: event.attempt is not None and holds(event.attempt), attempt
    )
    assert event.attempt is not None
    return event.attempt


async def ended(client: Client, bake_id: str) -> Attempt:
    """A bake's last attempt once it has its result."""
    return await until(client, bake_id, lambda attempt: attempt.result.is_finished)
