"""Writes the newest state of changed jobs to the database, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from neuro.domain.errors import Unavailable
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.fleet.leases import LeaseLost
from neuro.server.jobs import tables
from neuro.server.jobs.leases import EngineLease
from neuro.server.jobs.record import JobRecord

log = structlog.get_logger("neuro.jobs")


class _Gone:
    """The lease of an engine that this server had: nothing of its jobs is written."""

    is_held = False

    def check(self, connection: Connection) -> None:
        raise LeaseLost("Another server has this engine now: nothing was changed.")


_GONE: EngineLease = _Gone()

MAX_BATCH = 200
RETRY_SECONDS = 1.0
REFUSED_SECONDS = 60.0  # between two tries of records that the database refuses
CLOSE_SECONDS = 5.0
# What one record can be the cause of, before the database sees it.
_UNWRITABLE = (ArithmeticError, ValueError, TypeError, msgspec.MsgspecError)
_DEAD = "The server cannot write records of jobs any more, and is ending; its log says why."


def _nothing() -> None:
    pass


class Writer:
    """Collects changed records; one task writes what has collected, again and again.

    A disk without space, or a database that is away, is tried again for as long as it takes.
    A caller that waits for a write gets an error meanwhile. A record that the database refuses
    while it takes others is told in the log and kept aside: nobody else waits for it.

    A batch is written under the leases of its engines. Where another server has taken one over,
    the records of that engine are dropped, as they are that server's to write, and no others.
    """

    def __init__(self, database: Database, ring: Callable[[], None] = _nothing) -> None:
        """``ring`` is called after each commit: other servers are to look at what has changed."""
        self._database = database
        self._ring = ring
        self._leases: dict[str, EngineLease] = {}
        self._fences: Mapping[str, EngineLease] = {}  # those of the batch that is written now
        self._dirty: dict[str, JobRecord] = {}
        self._writing: dict[str, JobRecord] = {}
        self._refused: dict[str, JobRecord] = {}
        self._refused_until = 0.0  # when those are tried again
        # Ids of the records of failed writes, since the last success.
        self._suspects: set[str] = set()
        self._wake = asyncio.Event()
        self._flushed: list[asyncio.Future[None]] = []
        self._kept: Kept | None = None
        self._is_dead = False
        # Why the last changes of jobs are not in the database yet; None where they are.
        self.trouble: str | None = None

    def start(self, background: Background) -> None:
        """Begin to write; the server ends where that fails by a fault of the program's own."""
        self._kept = background.keep("writer of jobs", self._run, vital=True)

    def fence(self, engine: str, lease: EngineLease) -> None:
        """Write records of an engine under this lease from now on."""
        self._leases[engine] = lease

    def drop(self, engine: str) -> None:
        """Write no record of an engine any more until it is fenced again."""
        self._leases[engine] = _GONE
        for place in (self._dirty, self._refused):
            for record in [one for one in place.values() if one.engine == engine]:
                del place[record.id]

    def save(self, record: JobRecord) -> None:
        """Write this record soon."""
        self._dirty[record.id] = record
        self._wake.set()

    def unsaved(self, job_id: str) -> JobRecord | None:
        """The record of a job whose newest state is not in the database yet."""
        places = (self._dirty, self._writing, self._refused)
        return next((place[job_id] for place in places if job_id in place), None)

    async def flush(self, job_id: str | None = None) -> None:
        """Return once all that was saved before this call is in the database, or refused by it.

        Raises Unavailable once that fails, and where it is the record of ``job_id`` that is
        refused. The records are kept, and written as soon as they can.
        """
        if self._dirty or self._writing:
            if self._is_dead:
                raise Unavailable(_DEAD)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flushed.append(future)
            self._wake.set()
            await future
        if job_id in self._refused:
            raise Unavailable(f"The server's database refuses the record of {job_id}.")

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
        for job_id in self._refused:
            log.error("the record of a job was refused to the end", job=job_id)
        if self._kept is not None:
            await self._kept.stop()

    async def _run(self) -> None:
        try:
            await self._write_for_ever()
        except Exception:
            self._is_dead = True
            self.trouble = _DEAD
            waiting, self._flushed = self._flushed, []
            _tell(waiting, Unavailable(_DEAD))
            raise

    async def _write_for_ever(self) -> None:
        while True:
            await self._wait()
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

    async def _wait(self) -> None:
        """Return when there is something to write, or time to try what was refused."""
        clock = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._refused_until if self._refused else None):
                await self._wake.wait()
        if self._refused and clock() >= self._refused_until:
            self._dirty = {**self._refused, **self._dirty}
            self._refused_until = clock() + REFUSED_SECONDS
        self._wake.clear()

    async def _write_batch(self) -> None:
        ids = list(self._dirty)[: 1 if self._suspects else MAX_BATCH]
        batch = self._writing = {job_id: self._dirty.pop(job_id) for job_id in ids}
        self._fences = dict(self._leases)
        try:
            written = await self._write_those(batch)
            if written is not None and self._suspects:
                await self._find_culprits(batch, written)
        except BaseException as error:
            # Before anything else can fail. The others come first the next time: if the database
            # takes one of them, it is these that it does not take.
            self._dirty |= {
                key: one
                for key, one in batch.items()
                if key not in self._dirty and self._is_as_it_was(one.engine)
            }
            if isinstance(error, Unavailable | SQLAlchemyError):
                self._suspects.update(batch)
            raise
        finally:
            self._writing = {}

    async def _write_those(self, batch: dict[str, JobRecord]) -> JobRecord | None:
        """Write these, and take each out of ``batch``; returns a record that was written."""
        every = list(batch.values())
        try:
            await self._write(every)
            batch.clear()
            return every[0]
        except (SQLAlchemyError, *_UNWRITABLE) as error:
            if not _is_of_a_record(error):
                raise
        written = None
        for job_id, record in list(batch.items()):
            try:
                await self._write([record])
                written = record
            except (SQLAlchemyError, *_UNWRITABLE) as error:
                if not _is_of_a_record(error):
                    raise
                self._refuse(record, error)
            del batch[job_id]
        return written

    async def _find_culprits(self, batch: dict[str, JobRecord], good: JobRecord) -> None:
        """Write the suspects one by one. Refused is what fails while ``good`` can be written."""
        for job_id in list(self._suspects):
            suspect = self._dirty.get(job_id)
            if suspect is None or not self._is_as_it_was(suspect.engine):
                self._suspects.discard(job_id)
                continue
            record = batch[job_id] = self._dirty.pop(job_id)
            # Twice: a database that was away for one moment has refused nothing.
            for is_last in (False, True):
                try:
                    await self._write([record])
                    break
                except (Unavailable, SQLAlchemyError, *_UNWRITABLE) as error:
                    await self._write([good])
                    if is_last:
                        self._refuse(record, error)
            del batch[job_id]

    async def _write(self, records: list[JobRecord]) -> None:
        lost = await self._database.write(partial(_write_fenced, records, self._fences))
        self._ring()
        for engine in lost:
            log.warning("changes of jobs are another server's to write", engine=engine)
            # It may have been taken again meanwhile: what is new is written under that lease.
            if self._is_as_it_was(engine):
                self.drop(engine)
        for record in records:
            self._suspects.discard(record.id)
            self._refused.pop(record.id, None)

    def _is_as_it_was(self, engine: str) -> bool:
        """Whether an engine's lease is the one under which the batch is written."""
        return self._leases.get(engine) is self._fences.get(engine)

    def _refuse(self, record: JobRecord, error: Exception) -> None:
        self._suspects.discard(record.id)
        if not self._is_as_it_was(record.engine):
            return  # It is another server's to write, or is known anew.
        if not self._refused:
            self._refused_until = asyncio.get_running_loop().time() + REFUSED_SECONDS
        if record.id not in self._refused:
            cause = error.orig if isinstance(error, DBAPIError) else error
            log.error(
                "the database refuses the record of a job",
                job=record.id,
                owner=record.owner,
                error=str(cause),
            )
        self._refused[record.id] = record


def _write_fenced(
    records: list[JobRecord], leases: Mapping[str, EngineLease], connection: Connection
) -> list[str]:
    """Write the records of engines that are this server's; returns the other engines."""
    lost = []
    for engine in {record.engine: None for record in records}:
        lease = leases.get(engine)
        try:
            if lease is not None:
                lease.check(connection)
        except LeaseLost:
            lost.append(engine)
    kept = [record for record in records if record.engine not in lost]
    if kept:
        tables.update_jobs(connection, kept)
        tell_others(connection, Topic.JOB, [record.id for record in kept])
    return lost


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


def _is_of_a_record(error: Exception) -> bool:
    """Whether it is a record that the database refuses, not the database that is away."""
    if isinstance(error, DBAPIError):
        return isinstance(error, IntegrityError | DataError)
    return isinstance(error, (StatementError, *_UNWRITABLE))


def _sentence(error: Exception) -> str:
    if isinstance(error, Unavailable):
        return error.message
    return "The server's database does not answer."
