"""Keeps the database and the disk from filling up: old records and logs go, by the settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.sizes import parse_bytes
from neuro.engines.base import Engine
from neuro.server.database.engine import Database
from neuro.server.fleet.leases import Leases
from neuro.server.jobs import expiry
from neuro.server.jobs.leases import lease_of
from neuro.server.settings import RetentionSetting

log = structlog.get_logger("neuro.jobs")

BATCH = 1000


@dataclass(frozen=True)
class Keep:
    """How long and how much of finished jobs is kept."""

    age: timedelta
    jobs: int
    log_bytes: int


def keep_jobs(retention: RetentionSetting) -> Keep:
    """What the settings say of finished jobs."""
    return Keep(
        age=timedelta(days=retention.days),
        jobs=retention.jobs,
        log_bytes=parse_bytes(retention.log_bytes),
    )


class Retention:
    """Its sweep removes what is beyond the settings; of several servers each does its own engines'.

    Records of engines that no server has any more go with anybody's sweep.
    """

    def __init__(
        self,
        database: Database,
        engines: Mapping[str, Engine],
        keep: Keep,
        leases: Leases | None = None,
        unmet: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """``unmet`` are the engines that cannot be asked anything now."""
        self._database = database
        self._engines = engines
        self._keep = keep
        self._leases = leases
        self._unmet = unmet

    async def sweep(self) -> int:
        """Remove what is beyond the settings; returns how many records went."""
        removed = 0
        before = datetime.now(UTC) - self._keep.age
        while ids := await self._own(
            lambda connection: expiry.finished_before(connection, before, BATCH)
        ):
            removed += await self._remove(ids)
        while ids := await self._own(
            lambda connection: expiry.finished_beyond(connection, self._keep.jobs, BATCH)
        ):
            removed += await self._remove(ids)
        while ids := await self._own(
            lambda connection: expiry.logs_beyond(connection, self._keep.log_bytes, BATCH)
        ):
            await self._forget_logs(ids)
        if removed:
            log.info("old jobs removed", jobs=removed)
        return removed

    async def _own(self, choose: Callable[[Connection], list[str]]) -> list[str]:
        """The chosen jobs, without those of engines that other servers have."""
        ids = await self._database.read(choose)
        # Logs of an engine that was never there since the start would stay.
        others = set(self._unmet())
        if self._leases is not None and not self._database.is_sqlite:
            others |= await self._leases.held_by_others(lease_of(""))
            # And those of one that this server may have and does not.
            others |= {name for name in self._engines if self._leases.held(lease_of(name)) is None}
        if not ids or not others:
            return ids
        engines = await self._database.read(partial(expiry.engines_of, ids=ids))
        return [job_id for job_id in ids if engines.get(job_id) not in others]

    async def _remove(self, ids: Sequence[str]) -> int:
        # The log goes first: a crash in between leaves a record without a log, never the reverse.
        await self._forget_logs(ids)
        await self._database.write(lambda connection: expiry.delete_jobs(connection, ids))
        return len(ids)

    def _held(self) -> list[Engine]:
        leases = self._leases
        return [
            engine
            for name, engine in self._engines.items()
            if leases is None or self._database.is_sqlite or leases.held(lease_of(name)) is not None
            if name not in self._unmet()
        ]

    async def _forget_logs(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            for engine in self._held():
                await engine.remove(job_id)

        def mark(connection: Connection) -> None:
            expiry.mark_logs_removed(connection, ids)

        await self._database.write(mark)
