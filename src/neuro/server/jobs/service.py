"""The rules of jobs: listing, ending, extending; ``submission``, ``reader``. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from functools import partial

import msgspec

from neuro.domain.errors import Damaged, InvalidInput, NoSuchJob, NotFound, Unavailable
from neuro.domain.jobs import (
    ContainerRequest,
    Job,
    JobEventFilter,
    JobFilter,
    JobRequest,
    LifeSpanChange,
    Reason,
)
from neuro.domain.names import check_job_name, check_known_cluster, is_job_id
from neuro.domain.permissions import Action
from neuro.domain.resources import Amount
from neuro.engines.base import Engine
from neuro.server.access.grants import Visibility
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.jobs import lookups, specification, tables
from neuro.server.jobs.away import Away
from neuro.server.jobs.board import Board
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.events import JobEvents, Wanted
from neuro.server.jobs.holding import Holding
from neuro.server.jobs.intent_rows import Intent
from neuro.server.jobs.others import Others
from neuro.server.jobs.plan import JobLimits, Offer
from neuro.server.jobs.reader import JobReader
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord, to_wire
from neuro.server.jobs.submission import Submissions, Submitted
from neuro.server.jobs.writer import Writer

# So long the server that has a job may take to do what was asked of it, until the answer goes out.
PATIENCE_SECONDS = 2.0


class JobService:
    """Jobs of one installation."""

    def __init__(
        self,
        database: Database,
        board: Board,
        writer: Writer,
        reconciler: Reconciler,
        engines: Mapping[str, Engine],
        offer: Offer,
        *,
        check_volumes: Callable[[str, ContainerRequest], Awaitable[list[str]]],
        check_secrets: Callable[[Identity, ContainerRequest], Awaitable[None]],
        image_notice: Callable[[str, str], str | None],
        events: JobEvents,
        damaged: DamagedJobs,
        limits: JobLimits | None = None,
        others: Others | None = None,
    ) -> None:
        """``others`` is None for the only server there is.

        ``image_notice(engine, image)`` says what a first-time user of an image should know.

        ``check_volumes(owner, container)`` says what it made, and raises InvalidInput for a
        volume that is not there. ``check_secrets(caller, container)`` raises NotFound for a secret
        that is not there, or that the caller may not use.
        """
        self._reader = JobReader(database, board, writer)
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._engines = engines
        self._offer = offer
        self._events = events
        self._damaged = damaged
        self._others = others
        self._away = Away(database, others.offers) if others is not None else None
        self._submissions = Submissions(
            database,
            board,
            writer,
            self._reader,
            reconciler,
            offer,
            check_volumes=check_volumes,
            check_secrets=check_secrets,
            image_notice=image_notice,
            limits=limits or JobLimits(),
            others=others,
        )

    async def submit(
        self,
        caller: Identity,
        request: JobRequest,
        key: str | None = None,
        *,
        control: bool = False,
        registry: str = "",
    ) -> Submitted:
        """Accept a job: see ``Submissions.submit``."""
        return await self._submissions.submit(
            caller, request, key, control=control, registry=registry
        )

    def show(self, record: JobRecord) -> Job:
        """A record as clients read it."""
        return to_wire(
            record,
            datetime.now(UTC),
            self._board.waits_for(record),
            jobs_domain=self._offer.jobs_domain,
            ending=self._ending(record),
        )

    def _ending(self, record: JobRecord) -> str | None:
        """What the end of a job waits for that is to end."""
        away = self._away_of(record)
        if away is None or record.stop_reason is None or not record.is_active:
            return self._away.ending(record) if self._away is not None else None
        return f"{away}. The job ends when it is there"

    def _away_of(self, record: JobRecord) -> str | None:
        """Why nothing can be asked of this server's engine that a job is on, if that is so."""
        holding = self._reconciler.holding(record.engine)
        return None if holding is None or holding.is_met else self._board.lanes[record.engine].away

    async def look(self, record: JobRecord) -> Job:
        """``show``, with what is asked of it and cannot be done yet."""
        return self.show((await self._with_stops([record]))[0])

    async def _with_stops(self, records: list[JobRecord]) -> list[JobRecord]:
        return records if self._away is None else await self._away.with_stops(records)

    async def find(self, caller: Identity, name_or_id: str, action: Action) -> JobRecord:
        """The job behind an id or a name: see ``JobReader.find``."""
        return await self._reader.find(caller, name_or_id, action)

    async def find_to_end(self, caller: Identity, name_or_id: str) -> JobRecord | lookups.Whose:
        """The job that somebody wants to end: see ``JobReader.find_to_end``."""
        return await self._reader.find_to_end(caller, name_or_id)

    async def record(self, job_id: str) -> JobRecord | None:
        """The job of an id, whoever's it is: for what the server does by itself.

        None for a damaged one too: what goes on with the others goes on without it.
        """
        with suppress(Damaged):
            return await self._reader.get(job_id)
        return None

    async def search(
        self, caller: Identity, query: JobFilter, damaged: list[str] | None = None
    ) -> AsyncGenerator[Job]:
        """Jobs that the caller may see and that meet the query, oldest or newest first.

        ``damaged`` gets the ids of those whose records cannot be read.

        Raises InvalidInput (at the first item) for a bad name, limit or page, and for a cluster
        that is not this server's.
        """
        check_known_cluster(query.cluster_name, self._offer.cluster)
        if query.name is not None and not is_job_id(query.name):
            check_job_name(query.name)
        if query.limit is not None and query.limit < 1:
            raise InvalidInput("limit must be 1 or more.")
        query = _with_times_in_utc(query)
        visible = self._visible_to(caller)
        async with aclosing(self._reader.pages(visible, query, damaged)) as pages:
            async for page in pages:
                for record in await self._with_stops(page):
                    yield self.show(record)

    def events(self, caller: Identity, query: JobEventFilter) -> AsyncGenerator[bytes]:
        """Blocks of NDJSON: the state of the caller's jobs that match, then every change of it."""
        visible = self._visible_to(caller)
        jobs = JobFilter(tag=query.tag, owner=query.owner)
        wanted = Wanted.of(visible, query)

        def records() -> AsyncGenerator[JobRecord]:
            return self._records_of(wanted) if wanted.ids else self._records(visible, jobs)

        return self._events.watch(wanted, query.after, records)

    def _visible_to(self, caller: Identity) -> Visibility:
        return caller.scope("job", self._offer.cluster)

    async def _records(self, visible: Visibility, query: JobFilter) -> AsyncGenerator[JobRecord]:
        async with aclosing(self._reader.pages(visible, query)) as pages:
            async for page in pages:
                for record in page:
                    yield record

    async def _records_of(self, wanted: Wanted) -> AsyncGenerator[JobRecord]:
        for job_id in sorted(wanted.ids):
            record = await self.record(job_id) if is_job_id(job_id) else None
            if record is not None and wanted.holds_record(record):
                yield record

    def is_stranded(self, record: JobRecord) -> bool:
        """Whether a control job looks for the platform where it was, and is not any more."""
        known = record.specification.api_url
        if known is None or record.engine not in self._engines:
            return False  # Those of another server are at that server.
        return known != self._offer.api_url(record.engine)

    async def kill(self, record: JobRecord, reason: Reason = Reason.USER_REQUESTED) -> str | None:
        """End a job, for its user if nothing else is said.

        Nothing if it is over; returns when that is kept, with what the user should know: that no
        server, or no engine, is there which could end it now.
        """
        await self.kill_all([record], reason)
        live = self._board.get(record.id)
        if live is not None and (ending := self._ending(live)) is not None:
            return f"{ending}."
        if self._away is None or not record.is_active or record.engine in self._board.lanes:
            return None
        return await self._away.not_yet(record)

    async def kill_damaged(
        self, job: lookups.Whose, reason: Reason = Reason.USER_REQUESTED
    ) -> str | None:
        """The same of a job whose record cannot be read. Raises Unavailable."""
        if await self._damaged.end(job.id, reason.value) or self._others is None:
            return None
        await self._others.ask([Intent.stop(job, reason)])
        return f"The record of job {job.id} is damaged: the server that has its engine ends it."

    async def kill_all(
        self, records: Collection[JobRecord], reason: Reason = Reason.USER_REQUESTED
    ) -> None:
        """The same of many jobs; all that other servers are asked for is one transaction."""
        own = {}
        for record in records:
            live = self._board.get(record.id)
            if live is not None:
                own[live.id] = self._reconciler.holding(live.engine)
                self._reconciler.stop(live, reason)
        # A full disk keeps no job alive: the stop is written when there is room.
        with suppress(Unavailable):
            await self._writer.flush()
        if self._others is None:
            return
        # Those of other servers, and of an engine that was lost before the stop was written.
        left = [
            record
            for record in records
            if record.is_active and not self._has_kept(own.get(record.id))
        ]
        await self._others.ask([Intent.stop(record, reason) for record in left])

    def _has_kept(self, holding: Holding | None) -> bool:
        """Whether what was written of a job under this hold of its engine stays."""
        return holding is not None and self._reconciler.has_kept(holding)

    async def end_all_of(self, owners: Collection[str]) -> None:
        """End every job of these people."""
        found = [record for record in self._board.own if record.owner in owners]
        if self._others is not None:
            active = partial(tables.active_jobs, owners=owners)
            own = {record.id for record in found}
            every = await self._database.read(active)
            found += [record for record in every if record.id not in own]
        await self.kill_all(found)
        # No board has these. One on an engine of another server is for the sweep of that one.
        for job_id in await self._database.read(partial(tables.active_damaged, owners=owners)):
            await self._damaged.end(job_id, Reason.USER_REQUESTED.value)

    async def change_life_span(self, record: JobRecord, change: LifeSpanChange) -> None:
        """Add minutes to the life span, or set it. Raises InvalidInput."""
        if self._others is not None and record.is_active:
            # Also where this server has the engine: what others ask at the same time comes before
            # it or behind it, and neither takes back what the other has set.
            minutes = await self._others.ask_life_span(record, lambda job: _minutes(job, change))
            adds = change.additional_max_run_time_minutes is not None

            def is_set(job: JobRecord) -> bool:
                now = job.max_run_time_minutes
                return now == minutes or (adds and now is not None and now > minutes)

            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self.wait_until(record, is_set)
            return
        live = self._board.get(record.id)
        if live is None:
            raise InvalidInput(f"Job {record.id} is over: its life span cannot change.")
        self._reconciler.set_life_span(live, _minutes(live, change))
        try:
            await self._writer.flush(live.id)
        except Unavailable:
            self._reconciler.set_life_span(live, live.max_run_time_minutes)
            raise

    def capacity(self) -> dict[str, int]:
        """How many more jobs of each preset could start now."""
        counts = {}
        for preset in self._offer.presets:
            places = self._free(preset.engine)
            counts[preset.name] = sum(preset.amount.times_in(free) for free in places)
        return counts

    def _free(self, engine: str) -> list[Amount]:
        """What is free of an engine: of each node where that is known."""
        lane = self._board.lanes.get(engine)
        if lane is None and self._others is not None:
            return [self._others.offers.free(engine, self._board)]
        return [] if lane is None else [room.free for room in lane.rooms]

    async def wait_until(self, record: JobRecord, holds: Callable[[JobRecord], bool]) -> JobRecord:
        """Wait until ``holds`` is true of a job, or it is over; returns its newest state."""
        if self._board.get(record.id) is not None:
            return await self._board.wait_until(record, holds)
        if not record.is_active:
            return record
        # It has ended since it was looked at, or is another server's.
        newest = await self._reader.get(record.id)
        if newest is None:
            raise NoSuchJob(f"no such job {record.id}")
        if self._others is None or holds(newest):
            return newest
        # Looked at once more when it is waited for: it may have changed since it was read.
        self._others.follower.changed([record.id])
        return await self._board.wait_until(newest, holds)

    async def is_told(self) -> None:
        """Return once other servers can read what this one knows of its jobs.

        Who has read a stream to its end asks for the job next, and may ask another server.
        """
        if self._others is not None:
            await self._reader.flush()

    def engine_of(self, record: JobRecord) -> Engine:
        """The engine that a job is, or was, on.

        Raises NotFound where there is none any more, and Unavailable while it is away.
        """
        engine = self._engines.get(record.engine)
        if engine is None:
            raise NotFound(
                f"Job {record.id} ran on the engine '{record.engine}', which this server does not"
                " have any more."
            )
        away = self._away_of(record)
        if away is not None:
            raise Unavailable(
                f"{away}. Until it is there, job {record.id} can be listed and stopped, and nothing"
                " else. Try again later."
            )
        return engine


def _minutes(record: JobRecord, change: LifeSpanChange) -> int:
    """The life span that a job is to have. Raises InvalidInput."""
    minutes = change.max_run_time_minutes
    if change.additional_max_run_time_minutes is not None:
        if change.additional_max_run_time_minutes < 1 or minutes is not None:
            raise InvalidInput("Give additional_max_run_time_minutes of 1 or more, alone.")
        if record.max_run_time_minutes is None:
            raise InvalidInput(f"Job {record.id} has no limit on its life span.")
        minutes = record.max_run_time_minutes + change.additional_max_run_time_minutes
    if minutes is None:
        raise InvalidInput("Give additional_max_run_time_minutes or max_run_time_minutes.")
    specification.check_minutes(minutes)
    return minutes


def _with_times_in_utc(query: JobFilter) -> JobFilter:
    def aware(moment: datetime | None) -> datetime | None:
        return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment

    return msgspec.structs.replace(query, since=aware(query.since), until=aware(query.until))
