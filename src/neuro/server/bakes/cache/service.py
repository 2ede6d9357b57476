"""The rules of cache entries. Knows no HTTP.

Tasks take outcomes into their commands, so everybody who bakes in a project has outcomes of their
own: what another put there would run with the rights of whoever takes it.
"""

from __future__ import annotations

import hashlib

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.bakes import CacheEntry, CacheEntryRequest, new_id
from neuro.domain.flows import Project
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes.cache import tables
from neuro.server.bakes.checks import (
    MAX_FULL_ID,
    MAX_WORD,
    check_entry,
    fits,
    moment_or_now,
)
from neuro.server.database.blobs import pack_large, text_size
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns
from neuro.server.projects import tables as flows
from neuro.server.projects.guard import Guard, is_id, missing

_OF_ONE = "~"


def keep_outcome(
    connection: Connection, owner: str, entry: CacheEntry, packed: tables.Packed
) -> CacheEntry:
    """Keep an outcome for later bakes of a person, over the one of the same key if there is one.

    Raises IntegrityError without its project.
    """
    project = flows.get_project(connection, entry.project_id)
    kept_as = entry.key if project is None else _kept_as(entry.key, owner, project)
    kept = tables.put_entry(connection, msgspec.structs.replace(entry, key=kept_as), packed)
    return msgspec.structs.replace(kept, key=entry.key)


def _kept_as(key: str, owner: str, project: Project) -> str:
    """What a person's key is called in the table; no two people's are called the same."""
    if owner == project.owner and not key.startswith(_OF_ONE):
        return key
    return _OF_ONE + hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()


class CacheService:
    """The cache entries of one installation's projects."""

    def __init__(self, database: Database, guard: Guard, turns: Turns) -> None:
        self._database = database
        self._turns = turns
        self._guard = guard

    async def put(self, caller: Identity, request: CacheEntryRequest) -> CacheEntry:
        """Keep an outcome, over the one of the same key if there is one."""
        check_entry(request)
        entry = CacheEntry(
            id=new_id("cache-entry"),
            project_id=request.project_id,
            batch=request.batch,
            task_id=request.task_id,
            key=request.key,
            created_at=moment_or_now(request.created_at),
            raw_id=request.raw_id,
            outputs=request.outputs,
            state=request.state,
        )

        size = text_size(entry.outputs) + text_size(entry.state)
        packed = tables.Packed(
            await pack_large(entry.outputs, size), await pack_large(entry.state, size)
        )

        def put(connection: Connection) -> CacheEntry:
            self._guard.project(connection, caller, request.project_id, Action.WRITE)
            return keep_outcome(connection, caller.user, entry, packed)

        try:
            return await self._turns.write(caller.user, size, put)
        except IntegrityError:
            raise missing("Project", request.project_id) from None

    async def entry(self, caller: Identity, entry_id: str) -> CacheEntry:
        """The entry of an id."""

        def find(connection: Connection) -> CacheEntry:
            hidden = missing("Cache entry", entry_id)
            known = is_id("cache-entry", entry_id)
            entry = tables.get_entry(connection, entry_id) if known else None
            if entry is None:
                raise hidden
            self._guard.project(connection, caller, entry.project_id, Action.READ, hidden)
            return entry

        return await self._database.read(find)

    async def by_key(
        self, caller: Identity, project_id: str, batch: str, task_id: str, key: str
    ) -> CacheEntry:
        """The entry of a project's batch and task under a key."""

        def find(connection: Connection) -> CacheEntry:
            hidden = missing("Cache entry", key)
            project = self._guard.project(connection, caller, project_id, Action.READ, hidden)
            entry = None
            if fits(batch, MAX_WORD) and fits(task_id, MAX_FULL_ID) and fits(key, MAX_WORD):
                kept_as = _kept_as(key, caller.user, project)
                entry = tables.by_key(connection, project_id, batch, task_id, kept_as)
            if entry is None:
                raise hidden
            return msgspec.structs.replace(entry, key=key)

        return await self._database.read(find)

    async def clear(
        self, caller: Identity, project_id: str, batch: str | None, task_id: str | None
    ) -> None:
        """Forget a project's entries that meet every condition."""

        def remove(connection: Connection) -> None:
            self._guard.project(connection, caller, project_id, Action.WRITE)
            if (batch is None or fits(batch, MAX_WORD)) and (
                task_id is None or fits(task_id, MAX_FULL_ID)
            ):
                tables.remove_entries(connection, project_id, batch, task_id)

        await self._database.write(remove)
