"""Submitting a job: what is checked, reserved and written before it is accepted."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    PlatformError,
    TooManyRequests,
)
from neuro.domain.images import is_executor_image
from neuro.domain.jobs import ContainerRequest, Job, JobRequest
from neuro.domain.names import new_job_id
from neuro.domain.resources import NOTHING, Amount
from neuro.server.access.identity import Identity
from neuro.server.access.people import person_of
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Together
from neuro.server.fleet.changes import Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.jobs import lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.control_limits import check_control_limits
from neuro.server.jobs.others import Others
from neuro.server.jobs.plan import Draft, JobLimits, Offer, Refused, crowded, plan
from neuro.server.jobs.reader import JobReader
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord, to_wire
from neuro.server.jobs.writer import Writer

_KEY = re.compile(r"[ -~]{1,255}")


@dataclass(frozen=True)
class Submitted:
    """A new job, and what its owner should know once.

    ``replayed`` is a job of an earlier submission with the same key.
    """

    job: Job
    notices: tuple[str, ...] = ()
    replayed: bool = False


@dataclass(frozen=True)
class Key:
    """What a client calls a submission, and the digest of what it asks for."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str, request: JobRequest) -> Self:
        """Raises InvalidInput for a text that cannot be a key."""
        if not _KEY.fullmatch(text):
            raise InvalidInput(
                "An Idempotency-Key is 1 to 255 printable ASCII characters, for example a UUID."
            )
        canonical = msgspec.json.encode(request, order="deterministic")
        return cls(text, hashlib.sha256(canonical).hexdigest())


class Submissions:
    """Accepts jobs of one installation."""

    def __init__(
        self,
        database: Database,
        board: Board,
        writer: Writer,
        reader: JobReader,
        reconciler: Reconciler,
        offer: Offer,
        *,
        check_volumes: Callable[[str, ContainerRequest], Awaitable[list[str]]],
        check_secrets: Callable[[Identity, ContainerRequest], Awaitable[None]],
        image_notice: Callable[[str, str], str | None],
        limits: JobLimits,
        others: Others | None,
    ) -> None:
        """The other arguments are those of ``JobService``."""
        self._database = database
        self._together = Together(database)
        self._board = board
        self._writer = writer
        self._reader = reader
        self._reconciler = reconciler
        self._offer = offer
        self._check_volumes = check_volumes
        self._check_secrets = check_secrets
        self._image_notice = image_notice
        self._limits = limits
        self._others = others
        self._seen_images: set[tuple[str, str]] = set()

    async def submit(
        self,
        caller: Identity,
        request: JobRequest,
        key: str | None = None,
        *,
        control: bool = False,
        registry: str = "",
    ) -> Submitted:
        """Accept a job. It is in the database when this returns.

        A ``control`` job is one that the server trusts only to direct others. ``registry`` is the
        host by which the caller knows that of the platform.

        However often a caller submits the same ``request`` with the same ``key``, one job is made.

        Raises InvalidInput and its kin for a request that breaks rules, with a sentence for each,
        NotPermitted or NotFound for what the caller may not use, TooManyRequests where the queue is
        full or the caller has too many active jobs, Conflict for a key that stands for another
        request.
        """
        draft = Draft(request, control, new_job_id(), datetime.now(UTC), registry)
        if key is None:
            return await self._submit(caller, draft, None)
        named = Key.of(key, request)
        try:
            return await self._submit(caller, draft, named)
        except PlatformError:
            # The database refuses a known key. Whatever else stands in the way by now (a full
            # queue, the job's own name), a repeated submission is answered as the first was.
            earlier = await self._earlier(caller.user, named)
            if earlier is None:
                raise
            return earlier

    async def _earlier(self, owner: str, key: Key) -> Submitted | None:
        await self._writer.flush()
        found = await self._database.read(lambda c: tables.job_of_key(c, owner, key.text))
        if found is None:
            return None
        digest, record = found
        if digest != key.digest:
            raise Conflict(
                f"The Idempotency-Key '{key.text}' was used for another request, which made"
                f" {record.id}: choose a new key for a new job."
            )
        return Submitted(self._show(self._reader.newest(record)), replayed=True)

    async def _submit(self, caller: Identity, draft: Draft, key: Key | None) -> Submitted:
        if crowd := self._crowd(caller.user):
            raise crowd
        planned = plan(draft, caller, self._offer, self._capacities())
        if isinstance(planned, Refused):
            raise planned.error()
        await self._check_secrets(caller, planned.container)
        notices = await self._check_volumes(caller.user, planned.container)
        record = planned.record
        if (notice := await self._notice(record)) is not None:
            notices.append(notice)
        # A caller who leaves now must not leave a record behind that nobody schedules. What became
        # of it, nobody asks then.
        inserted = asyncio.create_task(self._insert(record, key))
        inserted.add_done_callback(lambda task: task.cancelled() or task.exception())
        accepted = await asyncio.shield(inserted)
        return Submitted(self._show(self._reader.newest(accepted)), tuple(notices))

    def _capacities(self) -> Mapping[str, Amount]:
        lanes = self._board.lanes.items()
        # Of an engine that was never there nobody knows what it has.
        own = {n: lane.most for n, lane in lanes if lane.away is None or lane.most != NOTHING}
        return own if self._others is None else {**self._others.offers.capacities, **own}

    async def _insert(self, record: JobRecord, key: Key | None) -> JobRecord:
        control = record.specification.control

        def insert(connection: Connection) -> int:
            if control:
                check_control_limits(connection, record.owner, self._limits)
            sequence = tables.insert_job(connection, reserved)
            if key is not None:
                tables.insert_key(connection, record.owner, key.text, key.digest, sequence)
            tell_others(connection, Topic.JOB, (record.id,))
            return sequence

        if record.name is not None or control:
            await self._writer.flush()  # The name, or room, may have become free a moment ago.
        # Asked in the same turn in which the place is taken: nobody comes in between.
        if crowd := self._crowd(record.owner):
            raise crowd
        # Of two with one name or key, or two control jobs, the second waits for the first; nobody
        # else should.
        may_wait = record.name is not None or key is not None or control
        write = self._database.write if may_wait else self._together.write
        lane = self._board.lanes.get(record.engine)
        reserved = self._board.reserve(record)
        try:
            accepted = replace(reserved, sequence=await write(insert))
        except BaseException as error:
            self._board.release(record)
            self._reconciler.schedule()
            if isinstance(error, IntegrityError):
                raise await self._name_is_taken(record) from None
            raise
        if self._others is not None:
            self._others.changes.ring()
            if lane is None or self._board.lanes.get(record.engine) is not lane:
                self._others.submitted(accepted)
                return accepted
        self._reconciler.submitted(accepted)
        return accepted

    def _crowd(self, owner: str) -> TooManyRequests | None:
        person = person_of(owner)
        return crowded(len(self._board), self._board.jobs_of(person), self._limits, person)

    async def _notice(self, record: JobRecord) -> str | None:
        image = record.specification.container.image
        key = (record.owner, image)
        if key in self._seen_images:
            return None
        self._seen_images.add(key)
        if len(self._seen_images) > 10_000:
            self._seen_images.clear()
        if is_executor_image(image) or record.specification.is_builder:
            return None
        notice = self._image_notice(record.engine, image)
        if notice is None or await self._database.read(
            lambda connection: lookups.image_was_used(connection, record.owner, image)
        ):
            return None
        return notice

    async def _name_is_taken(self, record: JobRecord) -> AlreadyExists:
        name = record.name or ""
        taken_by = await self._database.read(
            lambda connection: lookups.active_id_by_name(connection, record.owner, name)
        )
        return AlreadyExists(
            f"job with name '{name}' and owner '{record.owner}' already exists: '{taken_by}'"
            f" (end it with `neuro kill {name}`, or choose another name)"
        )

    def _show(self, record: JobRecord) -> Job:
        return to_wire(
            record,
            datetime.now(UTC),
            self._board.waits_for(record),
            jobs_domain=self._offer.jobs_domain,
        )
