"""Looks after every attempt that is not over: takes decisions, and does what they say.

Whatever happens (an attempt changes, a job ends, a time comes) only says *which* attempt to look
at. A look reads the database, so it may come late, twice or after a restart of the server, and
what was to be done is done. Signs of life alone are in memory: they are counted from the moment at
which this server took over.

One server at a time does this, by a lease, which fences what it writes. What the other servers
change comes by the hub; whose turn it is, and how often main jobs died, is in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, Bake, TaskStatus
from neuro.domain.errors import Damaged, TooManyRequests, Unavailable
from neuro.domain.jobs import Reason
from neuro.server.background import Background, Kept
from neuro.server.bakes.attempts import turns
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.bakes.events import Hub, Observer
from neuro.server.bakes.feed import record_tasks
from neuro.server.bakes.tasks.tables import open_tasks_of
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit
from neuro.server.fleet import changes
from neuro.server.fleet.leases import Lease, LeaseLost
from neuro.server.fleet.registry import Servers
from neuro.server.jobs.board import Board
from neuro.server.jobs.lookups import active_with_tags
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService
from neuro.server.supervision import main_jobs, records
from neuro.server.supervision.decisions import (
    CleanUp,
    Finish,
    Limits,
    StartMainJob,
    Wait,
    decide,
)
from neuro.server.supervision.facts import FactFinder
from neuro.server.supervision.records import Known
from neuro.server.supervision.starter import Starter
from neuro.server.supervision.watches import Watch, Watches, now

log = structlog.get_logger("neuro.bakes")

# After a look that failed: the database was away, or the queue of jobs is full.
RETRY_SECONDS = 5.0
# Until a server that was frozen knows whether it still has its lease.
FROZEN_SECONDS = 1.0


class Supervisor(Observer):
    """One for all bakes; everything happens on the event loop."""

    def __init__(
        self,
        database: Database,
        hub: Hub,
        board: Board,
        jobs: JobService,
        attempts: AttemptService,
        starter: Starter,
        limits: Limits,
        background: Background,
        servers: Servers,
    ) -> None:
        self._database = database
        self._hub = hub
        self._board = board
        self._jobs = jobs
        self._attempts = attempts
        self._starter = starter
        self._limits = limits
        self._facts = FactFinder(database, hub, servers, limits)
        # While this server is the one that does all this.
        self._lease: Lease | None = None
        self._watches = Watches()
        # In the order in which they are to be looked at; a dict, so that each is there once.
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._background = background
        self._looking: Kept | None = None
        self._errands = background.errands("supervision of bakes")
        board.listen(self._job_changed)

    async def take(self, lease: Lease) -> None:
        """Take over what there is, and begin."""
        self._lease = lease
        self._hub.observe(self)
        await self._watch_all()
        self._looking = self._background.keep("supervision of bakes", self._run)

    async def drop(self) -> None:
        """Stop, if it has begun; bakes go on."""
        self._lease = None
        self._hub.leave(self)
        if self._looking is not None:
            await self._looking.stop()
            self._looking = None
        await self._errands.stop()
        self._watches.clear()
        self._due.clear()

    async def _watch_all(self) -> None:
        found = await self._database.read(records.to_watch)
        # Of attempts that an earlier version made, and did not write down whose turn it is.
        in_line = [pair for pair in found if pair[1].meta.concurrency is not None]
        if in_line:
            await self._database.write(partial(records.enter_lines, found=in_line))
        for attempt, bake in found:
            self.attempt_created(bake, attempt)
        # Of those that were removed while nobody looked after bakes.
        gone = await self._database.read(records.gone_with_jobs)
        if gone:
            self._end_when_possible(gone)

    # Events.

    def attempt_created(self, bake: Bake, attempt: Attempt) -> None:
        """Watch it."""
        self._watches.keep(attempt)
        self._look_soon(attempt.id)

    def attempt_changed(self, before: Attempt, after: Attempt) -> None:
        """Look at it."""
        watch = self._watches.keep(after)
        if after.result is TaskStatus.RUNNING and before.result is not TaskStatus.RUNNING:
            watch.heard_at = now()
        self._look_soon(after.id)

    def attempt_noted(self, bake_id: str, attempt_id: str) -> None:
        """Another server has made it, or changed it: a look reads the rest."""
        self._watches.add(bake_id, attempt_id)
        self._look_soon(attempt_id)

    def bake_noted(self, bake_id: str) -> None:
        """Another server has removed it: end its jobs, as of a project."""
        found = self._watches.of_bake(bake_id)
        for attempt_id in found:
            self._watches.drop(attempt_id)
        if found:
            self._end_when_possible({bake_id})

    def fell_behind(self) -> None:
        """Look at everything."""
        self._errands.begin_until_done(self._watch_all, RETRY_SECONDS)
        for attempt_id in self._watches:
            self._look_soon(attempt_id)

    def executor_attached(self, attempt: Attempt) -> None:
        """Its terminal's executor is there, for as long as the stream is open."""
        watch = self._watches.hear(attempt.id)
        if watch is not None:
            watch.had_stream = True

    def executor_detached(self, attempt: Attempt) -> None:
        """From now on its silence counts."""
        self.attempt_touched(attempt.bake_id, attempt.id)
        self._look_soon(attempt.id)

    def driver_noted(self, attempt_id: str) -> None:
        """Its terminal's stream has begun or ended at another server: both are signs of life."""
        watch = self._watches.hear(attempt_id)
        if watch is not None:
            watch.had_stream = True
            self._look_soon(attempt_id)

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        """A sign of life."""
        self.touch_noted(attempt_id)

    def touch_noted(self, attempt_id: str) -> None:
        """A sign of life that another server has seen."""
        self._watches.hear(attempt_id)

    def project_removed(self, project_id: str, unfinished: Sequence[Attempt]) -> None:
        """End all jobs of its bakes, those that drive them first of all."""
        for attempt in unfinished:
            self._watches.drop(attempt.id)
        bake_ids = {attempt.bake_id for attempt in unfinished}
        self._end_when_possible(bake_ids)

    def _job_changed(self, record: JobRecord) -> None:
        if self._lease is None:
            return
        driven = None if record.is_active else self._watches.driven_by(record.id)
        if driven is not None:
            self._look_soon(driven)
        bake_id = main_jobs.bake_of(record)
        attempt_id = None if bake_id is None else self._watches.undriven_of(bake_id)
        # Whoever starts the server's own bakes hands them over.
        if attempt_id is not None and not self._starter.is_at(attempt_id):
            self._errands.begin(self._starter.adopt(attempt_id, record))

    # Looking.

    def _look_soon(self, attempt_id: str) -> None:
        self._due[attempt_id] = None
        self._wake.set()

    def _look_in(self, attempt_id: str, seconds: float) -> None:
        watch = self._watches.get(attempt_id)
        if watch is not None:
            loop = asyncio.get_running_loop()
            # A moment more, so that the time has come for certain.
            watch.timer = loop.call_later(seconds + 0.01, self._look_soon, attempt_id)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                attempt_id = next(iter(self._due))
                del self._due[attempt_id]
                try:
                    await self._look(attempt_id)
                except (Unavailable, TooManyRequests, LeaseLost) as error:
                    log.warning("a bake has to wait", attempt=attempt_id, error=error.message)
                    self._look_in(attempt_id, RETRY_SECONDS)
                except Exception:
                    log.exception("cannot look after a bake", attempt=attempt_id)
                    self._look_in(attempt_id, RETRY_SECONDS)

    async def _look(self, attempt_id: str) -> None:
        watch = self._watches.get(attempt_id)
        if watch is None:
            return
        watch.stop_timer()
        if self._lease is None or not self._lease.is_held:
            # This server was frozen: whether it goes on is known at the next renewal. Meanwhile
            # it heard of nobody, so silence counts from now.
            self._watches.hear_all()
            self._look_in(attempt_id, FROZEN_SECONDS)
            return
        known = await self._known(attempt_id, watch)
        if known is None:
            find = partial(records.gone, bake_ids=[watch.bake_id])
            await self._end_bakes(await self._database.read(find))
            self._watches.drop(attempt_id)
            return
        self._watches.keep(known.attempt)
        if not known.attempt.result.is_finished:
            await self._cancel_those_ahead(known)
        executor_id = known.attempt.executor_id
        record = None if executor_id is None else await self._jobs.record(executor_id)
        facts = await self._facts.find(watch, known, record, self._fence)
        decision = decide(facts, self._limits)
        match decision:
            case Wait(seconds):
                if seconds is not None:
                    self._look_in(attempt_id, seconds)
            case StartMainJob():
                if not await self._starter.start_next(known, self._fence):
                    self._look_soon(attempt_id)
            case Finish(result, message):
                log.info("a bake is given up", attempt=attempt_id, message=message)
                await self._finish(attempt_id, result, message)
            case CleanUp():
                await self._end(await self._jobs_of(known))
                await self._close_tasks(known.attempt)
                self._watches.drop(attempt_id)

    def _fence(self, connection: Connection) -> None:
        """In each transaction of this: raise LeaseLost where another server has taken over."""
        if self._lease is None:
            raise LeaseLost("Another server looks after bakes now.")
        self._lease.check(connection)

    async def _known(self, attempt_id: str, watch: Watch) -> Known | None:
        try:
            return await self._database.read(partial(records.known, attempt_id=attempt_id))
        except Damaged as error:
            # Nothing can be done for it, and those of its group must not wait for it.
            log.error("a damaged bake is not looked after", attempt=attempt_id, error=error.message)

            def leave(connection: Connection) -> None:
                self._fence(connection)
                turns.leave(connection, attempt_id)
                changes.record(connection, changes.Topic.ATTEMPT, [f"{watch.bake_id} {attempt_id}"])

            await commit(self._database, leave, lambda _: self._hub.line_moved())
            return None

    # Doing.

    async def _cancel_those_ahead(self, known: Known) -> None:
        concurrency = known.bake.meta.concurrency
        if concurrency is None or not concurrency.cancel_running:
            return
        line = await self._database.read(partial(turns.ahead, attempt_id=known.attempt.id))
        name = known.bake.name or known.bake.id
        message = f"Cancelled by {name}, which came after it in the group '{concurrency.group}'."
        for ahead in line or ():
            await self._finish(ahead.attempt_id, TaskStatus.CANCELLED, message)

    async def _finish(self, attempt_id: str, result: TaskStatus, message: str) -> None:
        await self._attempts.change(attempt_id, result=result, message=message, fence=self._fence)

    async def _close_tasks(self, attempt: Attempt) -> None:
        def close(connection: Connection) -> list[str]:
            self._fence(connection)
            closed = records.close_tasks(connection, attempt.id, datetime.now(UTC))
            if closed:
                record_tasks(connection, attempt.bake_id, attempt.id, closed)
            return closed

        def tell(closed: list[str]) -> None:
            if closed:
                self._hub.tasks_changed(attempt.bake_id, attempt.id, closed)

        # Mostly there are none, and reading thousands of tasks must not keep others from writing.
        if await self._database.read(partial(open_tasks_of, attempt_id=attempt.id)):
            await commit(self._database, close, tell)

    async def _jobs_of(self, known: Known) -> list[JobRecord]:
        """The active jobs of an attempt's tasks."""
        found = [
            record
            for record in await self._active_of({known.bake.id})
            if main_jobs.TAG not in record.specification.tags
        ]
        if found and not known.is_last:
            # The others are those of a later attempt, which goes on.
            own = await self._database.read(
                partial(records.jobs_of_tasks, attempt_id=known.attempt.id)
            )
            found = [record for record in found if record.id in own]
        return found

    async def _active_of(self, bake_ids: Iterable[str]) -> list[JobRecord]:
        """The active jobs of bakes, on whichever server they are."""
        tags = [main_jobs.tag_of(bake_id) for bake_id in bake_ids]
        ids = await self._database.read(partial(active_with_tags, tags=tags))
        found = [await self._jobs.record(job_id) for job_id in ids]
        return [record for record in found if record is not None and record.is_active]

    def _end_when_possible(self, bake_ids: set[str]) -> None:
        self._errands.begin_until_done(partial(self._end_bakes, bake_ids), RETRY_SECONDS)

    async def _end_bakes(self, bake_ids: set[str]) -> None:
        await self._end(await self._active_of(bake_ids))

    async def end_stranded(self) -> None:
        """End the main jobs that would wait without end for a server at its former address.

        Each server does so for the jobs that it has. Each has a successor, as if it had died. One
        whose attempt does not name it yet is adopted like all that change.
        """
        found = [record for record in self._board.own if self._jobs.is_stranded(record)]
        for record in found:
            log.info("a main job cannot find this server any more", job=record.id)
        await self._end(found, Reason.ADDRESS_CHANGED)

    async def _end(
        self, found: Iterable[JobRecord], reason: Reason = Reason.USER_REQUESTED
    ) -> None:
        await self._jobs.kill_all(list(found), reason)
