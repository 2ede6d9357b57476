"""The rules of tasks: records of one attempt, which stay as they are once they are final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import CacheEntry, Task, TaskRequest, TaskStatus, new_id
from neuro.domain.errors import Conflict, NotFound, NotUnique
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes.cache.service import keep_outcome
from neuro.server.bakes.cache.tables import Packed
from neuro.server.bakes.checks import (
    MAX_FULL_ID,
    check_batch,
    check_message,
    check_task,
    fits,
    in_utc,
    moment_or_now,
)
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_tasks
from neuro.server.bakes.guard import BakeGuard
from neuro.server.bakes.tables import brief_bake
from neuro.server.bakes.tasks import tables
from neuro.server.database.blobs import LARGE, pack, text_size
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns, paged
from neuro.server.projects.guard import is_id, missing

_NOTHING = pack({})
# Few of them are held at once: each may have outputs of megabytes.
PAGE = 50


class TaskService:
    """The tasks of one installation's attempts."""

    def __init__(self, database: Database, guard: BakeGuard, hub: Hub, turns: Turns) -> None:
        self._database = database
        self._turns = turns
        self._guard = guard
        self._hub = hub

    async def create(self, caller: Identity, request: TaskRequest) -> Task:
        """Add a task. Raises NotUnique where its attempt has one of that ``yaml_id``."""
        check_task(request)
        task = _task(request)
        rows = await _rows([task])
        taken = NotUnique(
            f"Task '{task.yaml_id[:80]}' exists already in attempt '{task.attempt_id}'."
        )

        def add(connection: Connection) -> str:
            attempt = self._guard.own_attempt(connection, caller, request.attempt_id)
            if tables.tasks_by_yaml_id(connection, attempt.id, [task.yaml_id]):
                raise taken
            tables.add_task(connection, rows[task.yaml_id])
            _keep(connection, caller, attempt.bake_id, [request], rows)
            return attempt.bake_id

        await self._commit(caller, add, request.attempt_id, [task])
        return task

    async def replace(self, caller: Identity, request: TaskRequest) -> Task:
        """Write a task anew, or add it.

        Raises Conflict for one that is final and would not stay as it is.
        """
        (task,) = await self._put(caller, [request])
        return task

    async def put(self, caller: Identity, requests: Sequence[TaskRequest]) -> None:
        """Write tasks of one attempt, all or, where one cannot be written, none of them."""
        if requests:
            await self._put(caller, requests)

    async def _put(self, caller: Identity, requests: Sequence[TaskRequest]) -> list[Task]:
        check_batch(requests)
        attempt_id = requests[0].attempt_id
        kept: list[Task] = []
        by_id = {request.yaml_id: request for request in requests}
        asked = {yaml_id: _task(request) for yaml_id, request in by_id.items()}
        rows = await _rows(asked.values())

        def put(connection: Connection) -> str:
            attempt = self._guard.own_attempt(connection, caller, attempt_id)
            changed: list[tables.Row] = []
            written: list[TaskRequest] = []
            for yaml_id, old in tables.known_tasks(connection, attempt.id, [*asked]):
                new, row = asked[yaml_id], rows[yaml_id]
                if old is not None and old.is_finished:
                    _check_same(old, new, row)
                    new = msgspec.structs.replace(new, statuses=old.statuses, message=old.message)
                else:
                    changed.append(row)
                    written.append(by_id[yaml_id])
                kept.append(new if old is None else msgspec.structs.replace(new, id=old.id))
            if changed:
                tables.put_tasks(connection, changed)
                _keep(connection, caller, attempt.bake_id, written, rows)
            return attempt.bake_id

        await self._commit(caller, put, attempt_id, asked.values())
        return kept

    async def _commit(
        self,
        caller: Identity,
        change: Callable[[Connection], str],
        attempt_id: str,
        asked: Collection[Task],
    ) -> None:
        size = _size(asked)

        yaml_ids = [task.yaml_id for task in asked]

        def write(connection: Connection) -> str:
            bake_id = change(connection)
            record_tasks(connection, bake_id, attempt_id, yaml_ids)
            return bake_id

        def tell(bake_id: str) -> None:
            self._hub.tasks_changed(bake_id, attempt_id, yaml_ids)

        try:
            await self._turns.commit(caller.user, size, write, tell)
        except IntegrityError:
            # The attempt was held: only with all that it hangs at could it go.
            raise missing("Attempt", attempt_id) from None

    async def tasks(self, caller: Identity, attempt_id: str) -> AsyncGenerator[Task]:
        """An attempt's tasks by ``yaml_id``; none where the caller can see no such attempt."""

        def page(after: Task | None, connection: Connection) -> list[Task]:
            if after is None:
                self._guard.attempt(connection, caller, attempt_id, Action.READ)
            return tables.page_of_tasks(attempt_id, PAGE, after, connection)

        try:
            async for task in paged(self._database, PAGE, page):
                yield task
        except NotFound:
            return

    async def task(self, caller: Identity, task_id: str) -> Task:
        """The task of an id."""

        def find(connection: Connection) -> Task:
            hidden = missing("Task", task_id)
            task = tables.get_task(connection, task_id) if is_id("task", task_id) else None
            if task is None:
                raise hidden
            self._guard.attempt(connection, caller, task.attempt_id, Action.READ, hidden)
            return task

        return await self._database.read(find)

    async def by_yaml_id(self, caller: Identity, attempt_id: str, yaml_id: str) -> Task:
        """The task of an attempt that its graph calls ``yaml_id``."""

        def find(connection: Connection) -> Task:
            hidden = missing("Task", yaml_id)
            attempt = self._guard.attempt(connection, caller, attempt_id, Action.READ, hidden)
            found = None
            if fits(yaml_id, MAX_FULL_ID):
                found = tables.tasks_by_yaml_id(connection, attempt.id, [yaml_id]).get(yaml_id)
            if found is None:
                raise hidden
            return found

        return await self._database.read(find)


def _task(request: TaskRequest) -> Task:
    return Task(
        id=new_id("task"),
        attempt_id=request.attempt_id,
        yaml_id=request.yaml_id,
        raw_id=request.raw_id,
        outputs=request.outputs,
        state=request.state,
        statuses=in_utc(request.statuses),
        message=check_message(request.message),
    )


async def _rows(new: Collection[Task]) -> dict[str, tables.Row]:
    """What is written of tasks, by ``yaml_id``."""

    def make() -> dict[str, tables.Row]:
        return {task.yaml_id: tables.row_of(task) for task in new}

    return make() if _size(new) < LARGE else await asyncio.to_thread(make)


def _keep(
    connection: Connection,
    caller: Identity,
    bake_id: str,
    requests: Sequence[TaskRequest],
    rows: Mapping[str, tables.Row],
) -> None:
    """Keep the outcomes of tasks for later bakes: with the records of their ends, or not at all."""
    kept = [
        (request, request.cache_key)
        for request in requests
        if request.cache_key is not None
        and request.statuses
        and request.statuses[-1].status is TaskStatus.SUCCEEDED
    ]
    bake = brief_bake(connection, bake_id) if kept else None
    if bake is None:
        return
    for request, key in kept:
        entry = CacheEntry(
            id=new_id("cache-entry"),
            project_id=bake.project_id,
            batch=bake.batch,
            task_id=request.yaml_id,
            key=key,
            created_at=moment_or_now(None),
            raw_id=request.raw_id or "",
            outputs=request.outputs or {},
            state=request.state or {},
        )
        row = rows[request.yaml_id]
        packed = Packed(row["outputs"] or _NOTHING, row["state"] or _NOTHING)
        keep_outcome(connection, caller.user, entry, packed)


def _check_same(old: tables.KnownTask, new: Task, row: tables.Row) -> None:
    """Raise Conflict where what has ended would not stay as it is."""
    is_same = old.status is new.status and old.raw_id == new.raw_id
    # Mostly the bytes tell: of thousands of outputs, none needs to be unpacked.
    if is_same and (old.outputs, old.state) != (row["outputs"], row["state"]):
        is_same = tables.outcome_of(old) == (new.outputs, new.state)
    if not is_same:
        raise Conflict(
            f"Task '{new.yaml_id}' is {old.status} already: what has ended stays as it is."
        )


def _size(tasks: Iterable[Task]) -> int:
    return sum(text_size(task.outputs) + text_size(task.state) for task in tasks)
