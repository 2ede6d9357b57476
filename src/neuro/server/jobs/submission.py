"""Submitting a job: what is checked, reserved and written before it is accepted."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotFound,
    PlatformError,
    TooManyRequests,
)
from neuro.domain.images import is_executor_image
from neuro.domain.jobs import ContainerRequest, Job, JobRequest, JobStatus, Reason
from neuro.domain.names import new_job_id
from neuro.domain.resources import Preset
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.jobs import specification, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord, Specification, to_wire
from neuro.server.jobs.writer import Writer

# A longer queue than this is answered with 429: it would only be held in memory.
MAX_ACTIVE_JOBS = 20_000
_KEY = re.compile(r"[ -~]{1,255}")


@dataclass(frozen=True)
class Offer:
    """What this installation offers to jobs. ``jobs_domain`` is the host of their web pages.

    ``api_url(engine)`` is where they find the platform.
    """

    cluster: str
    presets: list[Preset]
    default_engine: str
    jobs_domain: str
    api_url: Callable[[str], str]


@dataclass(frozen=True)
class ControlLimits:
    """How many control jobs there may be: of all together, and of each owner.

    They take nothing from the capacity, so nothing else bounds them.
    """

    total: int = 500
    per_owner: int = 100


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
        reconciler: Reconciler,
        offer: Offer,
        *,
        check_volumes: Callable[[str, ContainerRequest], Awaitable[list[str]]],
        image_notice: Callable[[str, str], str | None],
        control: ControlLimits,
        active_per_owner: int,
    ) -> None:
        """The arguments are those of ``JobService``."""
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._offer = offer
        self._check_volumes = check_volumes
        self._image_notice = image_notice
        self._control = control
        self._active_per_owner = active_per_owner
        self._seen_images: set[tuple[str, str]] = set()

    async def submit(
        self, caller: Identity, request: JobRequest, key: str | None = None
    ) -> Submitted:
        """Accept a job. It is in the database when this returns.

        However often a caller submits the same ``request`` with the same ``key``, one job is made.

        Raises InvalidInput and its kin for a request that breaks a rule, NotPermitted or NotFound
        for what the caller may not use, TooManyRequests where the queue is full or the caller has
        too many active jobs, Conflict for a key that stands for another request.
        """
        if key is None:
            return await self._submit(caller, request, None)
        named = Key.of(key, request)
        try:
            return await self._submit(caller, request, named)
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
        return Submitted(self._show(self._board.get(record.id) or record), replayed=True)

    async def _submit(self, caller: Identity, request: JobRequest, key: Key | None) -> Submitted:
        offer = self._offer
        if len(self._board) >= MAX_ACTIVE_JOBS:
            raise TooManyRequests(
                f"{MAX_ACTIVE_JOBS} jobs are active already; try again later.", retry_after=10
            )
        container = specification.container_of(request)
        specification.check_request(request, container, offer.cluster)
        for uri, action in specification.needed_permissions(
            request, container, offer.cluster, caller.user
        ):
            caller.require(uri, action, hidden=_hidden(uri))
        notices = await self._check_volumes(caller.user, container)
        record = self._new_record(caller.user, request, container)
        if (notice := await self._notice(record)) is not None:
            notices.append(notice)
        # A caller who leaves now must not leave a record behind that nobody schedules. What became
        # of it, nobody asks then.
        inserted = asyncio.create_task(self._insert(record, key))
        inserted.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(inserted)
        return Submitted(self._show(record), tuple(notices))

    async def _insert(self, record: JobRecord, key: Key | None) -> None:
        def insert(connection: Connection) -> int:
            sequence = tables.insert_job(connection, record)
            if key is not None:
                tables.insert_key(connection, record.owner, key.text, key.digest, sequence)
            return sequence

        if record.name is not None:
            await self._writer.flush()  # The name may have become free a moment ago.
        if record.specification.control:
            self._check_control(record.owner)
        if self._board.jobs_of(record.owner) >= self._active_per_owner:
            raise TooManyRequests(
                f"{self._active_per_owner} jobs of '{record.owner}' are active already, which is"
                " the most for one person: try again when one has ended, or end some with"
                " `neuro kill`.",
                retry_after=10,
            )
        self._board.reserve(record)
        try:
            record.sequence = await self._database.write(insert)
        except BaseException as error:
            self._board.release(record)
            self._reconciler.schedule()
            if isinstance(error, IntegrityError):
                raise await self._name_is_taken(record) from None
            raise
        self._reconciler.submitted(record)

    def _check_control(self, owner: str) -> None:
        limits = self._control
        if self._board.control_jobs >= limits.total:
            raise TooManyRequests(
                f"{limits.total} bakes are driven already; try again later.", retry_after=10
            )
        if self._board.control_jobs_of(owner) >= limits.per_owner:
            raise TooManyRequests(
                f"{limits.per_owner} bakes of '{owner}' are driven already, which is the most for"
                " one person; try again when one has ended.",
                retry_after=10,
            )

    def _new_record(
        self, owner: str, request: JobRequest, container: ContainerRequest
    ) -> JobRecord:
        offer = self._offer
        preset = specification.choose_preset(request, container.resources, offer.presets)
        if preset is not None:
            amount, engine, what = preset.amount, preset.engine, f"Preset '{preset.name}'"
        else:
            assert container.resources is not None
            amount = specification.explicit_amount(container.resources)
            engine, what = offer.default_engine, "This job"
        control = specification.is_control(container)
        if is_executor_image(container.image):
            engine = offer.default_engine  # the one on whose machine the platform's commands are
        if control:
            amount = specification.CONTROL_AMOUNT
        else:
            specification.check_fits(amount, self._board.lanes[engine].capacity, what)
        now = datetime.now(UTC)
        job_id = new_job_id()
        record = JobRecord(
            id=job_id,
            owner=owner,
            name=request.name,
            cluster=offer.cluster,
            engine=engine,
            priority=request.priority,
            created_at=now,
            max_run_time_minutes=request.max_run_time_minutes,
            specification=Specification(
                container=specification.wire_container(
                    container, amount, preset.gpu_model if preset and amount.gpu else None
                ),
                amount=amount,
                preset_name=preset.name if preset else None,
                description=request.description,
                tags=request.tags,
                schedule_timeout=request.schedule_timeout,
                restart_policy=request.restart_policy,
                pass_config=request.pass_config,
                privileged=request.privileged,
                scheduler_enabled=preset.scheduler_enabled if preset else False,
                preemptible_node=preset.preemptible_node if preset else False,
                credits_per_hour=preset.credits_per_hour if preset else "0",
                http_url=self._page_of(job_id) if container.http else None,
                http_url_named=(
                    self._page_of(f"{request.name}--{owner}")
                    if container.http and request.name
                    else None
                ),
                control=control,
                api_url=offer.api_url(engine) if control and request.pass_config else None,
            ),
        )
        record.step(JobStatus.PENDING, Reason.CREATING, now)
        return record

    def _page_of(self, name: str) -> str:
        return f"http://{name}.jobs.{self._offer.jobs_domain}"

    async def _notice(self, record: JobRecord) -> str | None:
        image = record.specification.container.image
        key = (record.owner, image)
        if key in self._seen_images:
            return None
        self._seen_images.add(key)
        if len(self._seen_images) > 10_000:
            self._seen_images.clear()
        if is_executor_image(image):
            return None
        notice = self._image_notice(record.engine, image)
        if notice is None or await self._database.read(
            lambda connection: tables.image_was_used(connection, record.owner, image)
        ):
            return None
        return notice

    async def _name_is_taken(self, record: JobRecord) -> AlreadyExists:
        name = record.name or ""
        taken_by = await self._database.read(
            lambda connection: tables.active_id_by_name(connection, record.owner, name)
        )
        return AlreadyExists(
            f"job with name '{name}' and owner '{record.owner}' already exists: '{taken_by}'"
            f" (end it with `neuro kill {name}`, or choose another name)"
        )

    def _show(self, record: JobRecord) -> Job:
        return to_wire(record, datetime.now(UTC), self._board.waits_for(record))


def _hidden(uri: ResourceURI) -> NotFound | None:
    """What is said instead of "not found" where only a privileged job asks for the cluster."""
    if uri.scheme == "cluster":
        return NotFound("Only administrators may run privileged jobs.")
    return None
