"""Jobs as they are now: on the board, on their way to the database, or in it. Knows no HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

from sqlalchemy import Connection

from neuro.domain.errors import Damaged, InvalidInput, NoSuchJob, Unavailable
from neuro.domain.jobs import JobFilter
from neuro.domain.names import is_job_id
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.grants import Visibility
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.jobs import listing, lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

PAGE = 500


class JobReader:
    """Reads jobs of one installation."""

    def __init__(self, database: Database, board: Board, writer: Writer) -> None:
        self._database = database
        self._board = board
        self._writer = writer

    async def find(self, caller: Identity, name_or_id: str, action: Action) -> JobRecord:
        """The job behind an id, or behind the name of one of the caller's own (the newest).

        Raises NoSuchJob where it is unknown or hidden, NotPermitted where it may only be seen,
        Damaged where it cannot be read any more.
        """
        missing = NoSuchJob(f"no such job {name_or_id[:256]}")
        found: JobRecord | lookups.Whose | None
        damaged = None
        try:
            found = await self._look_up(caller.user, name_or_id)
        except Damaged as error:
            # That there is a job, if a damaged one, is for those only who may see it.
            found, damaged = await self._whose(caller.user, name_or_id), error
        if found is None:
            raise missing
        uri = ResourceURI("job", found.cluster, (found.owner, found.id))
        if caller.action_on(uri) is None and found.name:
            uri = ResourceURI("job", found.cluster, (found.owner, found.name))
        caller.require(uri, action, hidden=missing)
        if isinstance(found, JobRecord):
            return found
        raise damaged or missing

    async def _look_up(self, user: str, name_or_id: str) -> JobRecord | None:
        """The job of an id, or of a name of this user's. Raises Damaged."""
        if is_job_id(name_or_id):
            return await self.get(name_or_id)
        await self.flush()
        return await self._find_by_name(user, name_or_id)

    async def _whose(self, user: str, name_or_id: str) -> lookups.Whose | None:
        if not is_job_id(name_or_id):
            return await self._database.read(lambda c: lookups.whose_newest(c, user, name_or_id))
        return await self._database.read(lambda c: lookups.whose(c, name_or_id))

    async def get(self, job_id: str) -> JobRecord | None:
        """The job of an id, whoever's it is. Raises Damaged."""
        record = self._board.get(job_id) or self._writer.unsaved(job_id)
        if record is None:
            await self.flush()
            record = await self._database.read(lambda c: tables.get_job(c, job_id))
        return record

    async def flush(self) -> None:
        """Let reads see what changed a moment ago. A full disk keeps nobody from reading."""
        with suppress(Unavailable):
            await self._writer.flush()

    def newest(self, record: JobRecord) -> JobRecord:
        """The state of a job that the database showed as ``record``."""
        return self._board.get(record.id) or self._writer.unsaved(record.id) or record

    async def _find_by_name(self, owner: str, name: str) -> JobRecord | None:
        record = await self._database.read(lambda c: tables.newest_by_name(c, owner, name))
        return record and self.newest(record)

    async def find_to_end(self, caller: Identity, name_or_id: str) -> JobRecord | lookups.Whose:
        """The same for somebody who wants to end it, which goes without its record."""
        try:
            return await self.find(caller, name_or_id, Action.WRITE)
        except Damaged:
            whose = await self._whose(caller.user, name_or_id)
            if whose is None:
                raise
            return whose

    async def pages(
        self, visible: Visibility, query: JobFilter, damaged: list[str] | None = None
    ) -> AsyncGenerator[list[JobRecord]]:
        """The jobs that may be seen and that meet the query. Raises InvalidInput for its page.

        ``damaged`` gets the ids of those that cannot be read, before the page without them.
        """
        after = await self._page_start(query.after)
        left = query.limit
        await self.flush()
        while left is None or left > 0:
            page = PAGE if left is None else min(PAGE, left)
            found = await self._page(visible, query, page, after)
            if damaged is not None:
                damaged += found.damaged
            yield [self.newest(record) for record in found.records]
            if found.next is None:
                return
            after = found.next
            left = None if left is None else left - len(found.records)

    async def _page(
        self, visible: Visibility, query: JobFilter, page: int, after: int | None
    ) -> listing.JobPage:
        def read(connection: Connection) -> listing.JobPage:
            return listing.list_jobs(connection, visible, query, page=page, after=after)

        return await self._database.read(read)

    async def _page_start(self, after: str | None) -> int | None:
        if after is None:
            return None
        sequence = await self._database.read(lambda c: lookups.sequence_of(c, after))
        if sequence is None:
            raise InvalidInput(f"There is no job '{after}' to go on after.")
        return sequence
