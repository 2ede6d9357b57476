"""Keeps the database and the disk from filling up: old records and logs go, by the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from neuro.engines.base import Engine
from neuro.server.database.engine import Database
from neuro.server.jobs import expiry

log = structlog.get_logger("neuro.jobs")

BATCH = 1000


@dataclass(frozen=True)
class Keep:
    """How long and how much of finished jobs is kept."""

    age: timedelta
    jobs: int
    log_bytes: int


class Retention:
    """Its sweep removes what is beyond the settings."""

    def __init__(self, database: Database, engines: Mapping[str, Engine], keep: Keep) -> None:
        self._database = database
        self._engines = engines
        self._keep = keep

    async def sweep(self) -> int:
        """Remove what is beyond the settings; returns how many records went."""
        removed = 0
        before = datetime.now(UTC) - self._keep.age
        while ids := await self._database.read(
            lambda connection: expiry.finished_before(connection, before, BATCH)
        ):
            removed += await self._remove(ids)
        while ids := await self._database.read(
            lambda connection: expiry.finished_beyond(connection, self._keep.jobs, BATCH)
        ):
            removed += await self._remove(ids)
        while ids := await self._database.read(
            lambda connection: expiry.logs_beyond(connection, self._keep.log_bytes, BATCH)
        ):
            await self._forget_logs(ids)
        if removed:
            log.info("old jobs removed", jobs=removed)
        return removed

    async def _remove(self, ids: Sequence[str]) -> int:
        # The log goes first: a crash in between leaves a record without a log, never the reverse.
        await self._forget_logs(ids)
        await self._database.write(lambda connection: expiry.delete_jobs(connection, ids))
        return len(ids)

    async def _forget_logs(self, ids: Sequence[str]) -> None:
        for job_id in ids:
            for engine in self._engines.values():
                await engine.remove(job_id)

        def mark(connection: Connection) -> None:
            expiry.mark_logs_removed(connection, ids)

        await self._database.write(mark)
