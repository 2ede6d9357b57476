"""Writes changed jobs to the database in batches, in the order of their changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
CLOSE_SECONDS = 5.0
_DEAD = "The server cannot write records of jobs any more, and is ending; its log says why."


class Writer:
    """Collects changed records; one task writes what has collected, again and again.

    A disk without space, or a database that is away, is tried again for as long as it takes.
    A caller that waits for a write gets an error meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dirty: dict[str, JobRecord] = {}
        self._writing: dict[str, JobRecord] = {}
        self._wake = asyncio.Event()
        self._flushed: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None
        self._is_dead = False
        # Why the last changes of jobs are not in the database yet; None where they are.
        self.trouble: str | None = None

    def start(self, on_death: Callable[[], None] = lambda: None) -> None:
        """Begin to write. ``on_death`` is called if that ends by a fault of the program's own."""
        self._task = asyncio.create_task(self._run(), name="job-writer")
        self._task.add_done_callback(lambda task: self._ended(task, on_death))

    def save(self, record: JobRecord) -> None:
        """Write this record soon."""
        self._dirty[record.id] = record
        self._wake.set()

    def unsaved(self, job_id: str) -> JobRecord | None:
        """The record of a job whose newest state is not in the database yet."""
        return self._dirty.get(job_id) or self._writing.get(job_id)

    async def flush(self) -> None:
        """Return once all that was saved before this call is in the database.

        Raises Unavailable once that fails. The records are kept, and written as soon as they can.
        """
        if not self._dirty and not self._writing:
            return
        if self._is_dead:
            raise Unavailable(_DEAD)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushed.append(future)
        self._wake.set()
        await future

    async def settle(self) -> None:
        """``flush``, however long the database is away. Raises Unavailable only at the end."""
        while True:
            try:
                return await self.flush()
            except Unavailable:
                if self._is_dead:
                    raise

    async def close(self) -> None:
        """Write the rest and stop. What cannot be written in 5 seconds is given up.

        The engines know how their runs ended: the next server asks them.
        """
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.settle()
        except (TimeoutError, Unavailable):
            log.error("changes of jobs are not written", jobs=len(self._dirty | self._writing))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._flushed = self._flushed, []
            try:
                while self._dirty:
                    await self._write_batch()
            except (Unavailable, SQLAlchemyError) as error:
                self.trouble = _sentence(error)
                _tell(waiting, error)
                self._wake.set()
                log.error("cannot write jobs, trying again", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except BaseException:
                self._flushed += waiting
                raise
            self.trouble = None
            _tell(waiting, None)

    async def _write_batch(self) -> None:
        # Copies, because the event loop goes on changing the records while the thread writes.
        ids = list(self._dirty)[:MAX_BATCH]
        batch = self._writing = {job_id: self._dirty.pop(job_id) for job_id in ids}
        copies = [replace(one, transitions=list(one.transitions)) for one in batch.values()]
        try:
            await self._database.write(lambda c: tables.update_jobs(c, copies))
        except BaseException:
            self._dirty = {**batch, **self._dirty}  # before anything else can fail
            raise
        finally:
            self._writing = {}

    def _ended(self, task: asyncio.Task[None], on_death: Callable[[], None]) -> None:
        if task.cancelled():
            return
        self._is_dead = True
        self.trouble = _DEAD
        waiting, self._flushed = self._flushed, []
        _tell(waiting, Unavailable(_DEAD))
        log.error("jobs are not written any more", exc_info=task.exception())
        on_death()


def _tell(waiting: list[asyncio.Future[None]], error: Exception | None) -> None:
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        elif isinstance(error, Unavailable):
            future.set_exception(error)
        else:
            future.set_exception(Unavailable(_sentence(error)))


def _sentence(error: Exception) -> str:
    if isinstance(error, Unavailable):
        return error.message
    return "The server's database does not answer."
