"""Bakes: runs of batch workflows, with all that is kept of them on the server."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from neuro.client.messages import below, each, find, get, listed, query_of, send, tell
from neuro.client.transport import Params
from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeChange,
    BakeEvent,
    BakeFilter,
    BakeImage,
    BakeImageChange,
    BakeImageRequest,
    BakeRequest,
    CacheEntry,
    CacheEntryRequest,
    ConfigFile,
    ConfigFileRequest,
    Schedule,
    ScheduleRequest,
    Task,
    TaskRequest,
)

if TYPE_CHECKING:
    from neuro.client.client import Client
    from neuro.domain.jobs import Job

LAST = -1
# What the server takes in one call.
MAX_TASKS_A_CALL = 1000

_BAKES = "/flow/bakes"
_ATTEMPTS = "/flow/attempts"
_TASKS = "/flow/tasks"
_FILES = "/flow/config_files"
_CACHE = "/flow/cache_entries"
_IMAGES = "/flow/bake_images"
_SCHEDULES = "/flow/schedules"
_WITH_ATTEMPT = ("fetch_last_attempt", "1")


class Bakes:
    """The bakes of a client's server. Look-ups by name, number or key give None for nothing."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport

    async def create(self, request: BakeRequest) -> Bake:
        """Make a bake. Raises Conflict where one of that name has not ended."""
        return await send(self._transport, "POST", _BAKES, request, Bake)

    async def get(self, bake_id: str) -> Bake:
        """A bake with its last attempt. Raises NotFound."""
        path = below(_BAKES, bake_id)
        return await get(self._transport, path, Bake, params=[_WITH_ATTEMPT])

    async def by_name(self, project_id: str, name: str) -> Bake | None:
        """The newest bake of that name, with its last attempt."""
        params = [("project_id", project_id), ("name", name), _WITH_ATTEMPT]
        return await find(self._transport, f"{_BAKES}/by_name", params, Bake)

    async def list(self, query: BakeFilter) -> builtins.list[Bake]:
        """A project's bakes that match, oldest first unless reversed."""
        return await listed(self._transport, _BAKES, query_of(query), Bake)

    async def change(self, bake_id: str, change: BakeChange) -> Bake:
        """Write a bake's graphs anew."""
        return await send(self._transport, "PATCH", below(_BAKES, bake_id), change, Bake)

    async def events(
        self, bake_id: str, attempt: int = LAST, *, tasks: bool = True, executor: bool = False
    ) -> AsyncGenerator[BakeEvent]:
        """An attempt's state, ``synced``, then each change, until the connection ends.

        ``executor`` says that the caller drives the attempt: this connection is its sign of life.
        """
        params = [("attempt", str(attempt)), ("tasks", _flag(tasks)), ("executor", _flag(executor))]
        path = f"{below(_BAKES, bake_id)}/events"
        async with aclosing(each(self._transport, path, params, BakeEvent)) as events:
            async for event in events:
                yield event

    async def create_attempt(self, request: AttemptRequest) -> Attempt:
        """Add an attempt, with all that it keeps of an earlier one.

        Raises Conflict for a number that is taken, or while one is open; nothing is there then.
        """
        return await send(self._transport, "POST", _ATTEMPTS, request, Attempt)

    async def attempts(self, bake_id: str) -> builtins.list[Attempt]:
        """A bake's attempts by number; none for an unknown bake."""
        return await listed(self._transport, _ATTEMPTS, _of_bake(bake_id), Attempt)

    async def attempt(self, bake_id: str, number: int = LAST) -> Attempt | None:
        """A bake's attempt of that number, or its last one."""
        params = [("bake_id", bake_id), ("number", str(number))]
        return await find(self._transport, f"{_ATTEMPTS}/by_number", params, Attempt)

    async def get_attempt(self, attempt_id: str) -> Attempt:
        """An attempt by its id. Raises NotFound."""
        return await get(self._transport, below(_ATTEMPTS, attempt_id), Attempt)

    async def replace_attempt(self, request: AttemptRequest) -> Attempt:
        """Change an attempt's result, executor and message.

        A final result stays. Returns the attempt as it is stored.
        """
        return await send(self._transport, "PUT", f"{_ATTEMPTS}/replace", request, Attempt)

    async def start_executor(self, attempt_id: str) -> Job:
        """Have the server start the job that drives an attempt; again, it is the same job."""
        from neuro.domain.jobs import Job

        path = f"{below(_ATTEMPTS, attempt_id)}/executor"
        return await send(self._transport, "POST", path, {}, Job)

    async def tasks(self, attempt_id: str) -> builtins.list[Task]:
        """An attempt's tasks; none for an unknown attempt."""
        return await listed(self._transport, _TASKS, [("attempt_id", attempt_id)], Task)

    async def create_task(self, request: TaskRequest) -> Task:
        """Add a task. Raises Conflict where its attempt has one of that ``yaml_id``."""
        return await send(self._transport, "POST", _TASKS, request, Task)

    async def replace_task(self, request: TaskRequest) -> Task:
        """Write a task anew. Raises Conflict for one that has ended otherwise."""
        return await send(self._transport, "PUT", f"{_TASKS}/replace", request, Task)

    async def put_tasks(self, requests: Sequence[TaskRequest]) -> None:
        """Add or write anew tasks of one attempt, a thousand in one call."""
        for start in range(0, len(requests), MAX_TASKS_A_CALL):
            part = requests[start : start + MAX_TASKS_A_CALL]
            await tell(self._transport, "PUT", f"{_TASKS}/batch", part)

    async def add_file(self, request: ConfigFileRequest) -> ConfigFile:
        """Keep the text of a flow file."""
        return await send(self._transport, "POST", _FILES, request, ConfigFile)

    async def file(self, file_id: str) -> ConfigFile:
        """A flow file that was kept. Raises NotFound."""
        return await get(self._transport, below(_FILES, file_id), ConfigFile)

    async def cache_entry(
        self, project_id: str, batch: str, task_id: str, key: str
    ) -> CacheEntry | None:
        """The outcome that is kept for a key."""
        params = [("project_id", project_id), ("batch", batch), ("task_id", task_id), ("key", key)]
        return await find(self._transport, f"{_CACHE}/by_key", params, CacheEntry)

    async def add_cache_entry(self, request: CacheEntryRequest) -> CacheEntry:
        """Keep an outcome, over the one of the same key if there is one."""
        return await send(self._transport, "POST", _CACHE, request, CacheEntry)

    async def clear_cache(
        self, project_id: str, batch: str | None = None, task_id: str | None = None
    ) -> None:
        """Forget a project's outcomes, or those of one batch, or of one of its tasks."""
        params = [("project_id", project_id)]
        params += [] if batch is None else [("batch", batch)]
        params += [] if task_id is None else [("task_id", task_id)]
        await tell(self._transport, "DELETE", _CACHE, params=params)

    async def images(self, bake_id: str) -> builtins.list[BakeImage]:
        """A bake's images by their refs; none for an unknown bake."""
        return await listed(self._transport, _IMAGES, _of_bake(bake_id), BakeImage)

    async def add_image(self, request: BakeImageRequest) -> BakeImage:
        """Add an image. Raises Conflict where the bake has one of that ref."""
        return await send(self._transport, "POST", _IMAGES, request, BakeImage)

    async def change_image(self, image_id: str, change: BakeImageChange) -> BakeImage:
        """Change what is known of building an image."""
        return await send(self._transport, "PATCH", below(_IMAGES, image_id), change, BakeImage)

    async def put_schedule(self, request: ScheduleRequest) -> Schedule:
        """Start bakes of a batch by the clock; one schedule for each project and batch."""
        return await send(self._transport, "PUT", _SCHEDULES, request, Schedule)

    async def schedules(self, project_id: str) -> builtins.list[Schedule]:
        """A project's schedules; none for an unknown project."""
        params = [("project_id", project_id)]
        return await listed(self._transport, _SCHEDULES, params, Schedule)

    async def delete_schedule(self, schedule_id: str) -> None:
        """End a schedule; its bakes stay. Raises NotFound."""
        await tell(self._transport, "DELETE", below(_SCHEDULES, schedule_id))


def _of_bake(bake_id: str) -> Params:
    return [("bake_id", bake_id)]


def _flag(value: bool) -> str:
    return "1" if value else "0"
