"""Writes changed jobs to the database in batches, in the order of their changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from neuro.domain.errors import Unavailable
from neuro.server.database.engine import Database
from neuro.server.jobs import tables
from neuro.server.jobs.record import JobRecord

log = structlog.get_logger("neuro.jobs")

MAX_BATCH = 200
RETRY_SECONDS = 1.0


class Writer:
    """Collects changed records; one task writes what has collected, again and again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dirty: dict[str, JobRecord] = {}
        self._wake = asyncio.Event()
        self._flushed: list[asyncio.Future[None]] = []
        self._is_writing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="job-writer")

    def save(self, record: JobRecord) -> None:
        """Write this record soon."""
        self._dirty[record.id] = record
        self._wake.set()

    async def flush(self) -> None:
        """Return once all that was saved before this call is in the database."""
        if not self._dirty and not self._is_writing:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushed.append(future)
        self._wake.set()
        await future

    async def close(self) -> None:
        """Write the rest and stop."""
        await self.flush()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._flushed = self._flushed, []
            self._is_writing = True
            while self._dirty:
                await self._write_batch()
            self._is_writing = False
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _write_batch(self) -> None:
        # Copies, because the event loop goes on changing the records while the thread writes.
        ids = list(self._dirty)[:MAX_BATCH]
        batch = [self._dirty.pop(job_id) for job_id in ids]
        copies = [replace(record, transitions=list(record.transitions)) for record in batch]
        try:
            await self._database.write(lambda c: tables.update_jobs(c, copies))
        except (Unavailable, SQLAlchemyError) as error:
            # A full disk or a database that is away: keep the changes and try again.
            log.error("cannot write jobs, trying again", error=str(error), jobs=len(batch))
            for record in batch:
                self._dirty.setdefault(record.id, record)
            await asyncio.sleep(RETRY_SECONDS)
