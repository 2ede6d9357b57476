"""The rules of bakes. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import (
    Attempt,
    Bake,
    BakeChange,
    BakeFilter,
    BakeRequest,
    TaskStatus,
    new_id,
)
from neuro.domain.errors import NotFound, NotUnique
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes import tables
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.bakes.checks import (
    MAX_WORD,
    aware,
    check_bake,
    check_graphs,
    fits,
    moment_or_now,
)
from neuro.server.bakes.events import Hub
from neuro.server.bakes.guard import BakeGuard
from neuro.server.database.blobs import pack
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns, paged
from neuro.server.projects.guard import missing

PAGE = 50
# Who makes a bake makes its first attempt in seconds, or was ended in between.
BEGINS_WITHIN = timedelta(minutes=2)
# Packed graphs over this are unpacked off the event loop: a few milliseconds and more.
LARGE_GRAPHS = 16 << 10


def name_in_use(name: str, running: str | None) -> NotUnique:
    """What to raise where a bake of that name has not ended."""
    which = f" ({running})" if running else ""
    return NotUnique(
        f"Bake '{name}' of this project has not ended{which}: wait for its end, cancel it, or"
        " choose another name."
    )


class BakeService:
    """The bakes of one installation, which hang at their projects."""

    def __init__(self, database: Database, guard: BakeGuard, hub: Hub, turns: Turns) -> None:
        self._database = database
        self._turns = turns
        self._guard = guard
        self._hub = hub

    async def create(self, caller: Identity, request: BakeRequest) -> Bake:
        """Make a bake. Raises NotUnique where one of that name has not ended."""
        check_bake(request)
        bake = Bake(
            id=new_id("bake"),
            project_id=request.project_id,
            batch=request.batch,
            created_at=moment_or_now(request.created_at),
            graphs=request.graphs,
            params=request.params,
            name=request.name,
            tags=request.tags,
            # The server alone says so: it starts what schedules make in their owners' names.
            meta=msgspec.structs.replace(request.meta, schedule=None),
            owner=caller.user,
        )

        # Before the transaction: large graphs take longer than others should wait for theirs.
        graphs = await asyncio.to_thread(pack, bake.graphs)

        def add(connection: Connection) -> None:
            self._guard.project(connection, caller, request.project_id, Action.WRITE)
            if bake.name is not None:
                self._free_name(connection, bake.project_id, bake.name)
            tables.add_bake(connection, bake, graphs)

        try:
            await self._turns.write(caller.user, len(graphs), add)
        except IntegrityError:
            # Of two at once the other won, unless the project has gone, which this look-up says.
            await self._check_project(caller, bake.project_id)
            raise name_in_use(bake.name or "", None) from None
        return bake

    def _free_name(self, connection: Connection, project_id: str, name: str) -> None:
        """Raise unless the name is free, or its bake was given up before its first attempt."""
        running = tables.open_by_name(connection, project_id, name)
        if running is None:
            return
        bake = tables.brief_bake(connection, running)
        begun = attempts.by_number(connection, running, -1) is not None
        if begun or bake is None or bake.created_at > datetime.now(UTC) - BEGINS_WITHIN:
            raise name_in_use(name, running)
        tables.set_status(connection, running, TaskStatus.CANCELLED)

    async def _check_project(self, caller: Identity, project_id: str) -> None:
        def look(connection: Connection) -> None:
            self._guard.project(connection, caller, project_id, Action.READ)

        await self._database.read(look)

    async def bakes(self, caller: Identity, query: BakeFilter) -> AsyncGenerator[Bake]:
        """A project's bakes by time; none where the caller can see no such project."""
        texts = [*query.tags, *([] if query.name is None else [query.name])]
        if not all(fits(text, MAX_WORD) for text in texts):
            return
        query = msgspec.structs.replace(query, since=aware(query.since), until=aware(query.until))

        def page(
            after: tables.ListedBake | None, connection: Connection
        ) -> list[tables.ListedBake]:
            if after is None:
                self._guard.project(connection, caller, query.project_id, Action.READ)
            found = tables.list_bakes(connection, query, page=PAGE, after=after)
            if not query.fetch_last_attempt:
                return found
            last = attempts.last_of(connection, [each.id for each in found])
            return [
                replace(each, bake=each.bake and _with_attempt(each.bake, last.get(each.id)))
                for each in found
            ]

        try:
            async for each in paged(self._database, PAGE, page):
                large = len(each.graphs) > LARGE_GRAPHS
                bake = await asyncio.to_thread(each.whole) if large else each.whole()
                if bake is not None:
                    yield bake
        except NotFound:
            return

    async def bake(self, caller: Identity, bake_id: str, *, last_attempt: bool = False) -> Bake:
        """The bake of an id. Raises Damaged, as ``by_name`` does, where it cannot be read."""

        def find(connection: Connection) -> Bake:
            self._guard.bake(connection, caller, bake_id, Action.READ)
            bake = tables.get_bake(connection, bake_id)
            return _found(connection, bake, missing("Bake", bake_id), last_attempt)

        return await self._database.read(find)

    async def by_name(
        self, caller: Identity, project_id: str, name: str, *, last_attempt: bool = False
    ) -> Bake:
        """The newest bake of a name."""

        def find(connection: Connection) -> Bake:
            hidden = missing("Bake", name)
            self._guard.project(connection, caller, project_id, Action.READ, hidden)
            bake = None
            if fits(name, MAX_WORD):
                bake = tables.newest_by_name(connection, project_id, name)
            return _found(connection, bake, hidden, last_attempt)

        return await self._database.read(find)

    async def change(self, caller: Identity, bake_id: str, change: BakeChange) -> Bake:
        """Write the graphs of the caller's own bake anew."""
        check_graphs(change.graphs)
        graphs = await asyncio.to_thread(pack, change.graphs)

        def write(connection: Connection) -> Bake:
            bake = self._guard.own_bake(connection, caller, bake_id)
            tables.change_graphs(connection, bake.id, graphs)
            return msgspec.structs.replace(bake, graphs=change.graphs)

        return await self._turns.write(caller.user, len(graphs), write)


def _found(connection: Connection, bake: Bake | None, hidden: NotFound, last_attempt: bool) -> Bake:
    if bake is None:
        raise hidden
    if not last_attempt:
        return bake
    return _with_attempt(bake, attempts.by_number(connection, bake.id, -1))


def _with_attempt(bake: Bake, attempt: Attempt | None) -> Bake:
    return msgspec.structs.replace(bake, last_attempt=attempt)
