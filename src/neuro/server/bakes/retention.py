"""Keeps the database from filling up with bakes that are over and outcomes that nobody reuses.

The jobs of a bake are not touched: they have a retention of their own, as have the bakes' outcomes
in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts.tables import end_unbegun
from neuro.server.bakes.cache.tables import remove_older
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_removal
from neuro.server.database.engine import Database
from neuro.server.database.transactions import commit
from neuro.server.settings import RetentionSetting

log = structlog.get_logger("neuro.bakes")

BATCH = 200
# A bake that has just ended stays: people look at it, and its last jobs are being ended.
SETTLED = timedelta(minutes=10)
# Who makes a bake makes its first attempt in seconds: after so long it is not being made any more.
UNBEGUN_FOR = timedelta(days=1)


@dataclass(frozen=True)
class KeepFlows:
    """How long and how many finished bakes are kept, and how long the outcomes of tasks."""

    age: timedelta
    bakes: int
    cache_age: timedelta


def keep_flows(retention: RetentionSetting) -> KeepFlows:
    """What the settings say of finished bakes and kept outcomes."""
    return KeepFlows(
        age=timedelta(days=retention.days),
        bakes=retention.bakes,
        cache_age=timedelta(days=retention.cache_days),
    )


class FlowRetention:
    """Its sweep removes what is beyond the settings, in short transactions, oldest first."""

    def __init__(self, database: Database, hub: Hub, keep: KeepFlows) -> None:
        self._database = database
        self._hub = hub
        self._keep = keep

    async def sweep(self) -> int:
        """Remove what is beyond the settings; returns how many bakes went."""
        now = datetime.now(UTC)
        settled = now - SETTLED
        old = min(now - self._keep.age, settled)
        await self._database.write(partial(end_unbegun, before=now - UNBEGUN_FOR, now=now))

        def beyond_age(connection: Connection) -> list[str]:
            return bakes.finished_before(connection, old, BATCH)

        def beyond_count(connection: Connection) -> list[str]:
            return bakes.finished_beyond(connection, self._keep.bakes, settled, BATCH)

        removed = 0
        for choose in (beyond_age, beyond_count):
            while ids := await self._database.read(choose):
                removed += await self._remove(ids)
        outcomes = await self._forget_outcomes(now - self._keep.cache_age)
        if removed or outcomes:
            log.info("old bakes removed", bakes=removed, outcomes=outcomes)
        return removed

    async def _remove(self, ids: Sequence[str]) -> int:
        removed = 0
        for bake_id in ids:
            # Each alone: one may have thousands of tasks, and others wait to write.
            remove = partial(_remove, bake_id=bake_id)
            removed += await commit(self._database, remove, partial(self._tell, bake_id))
        return removed

    def _tell(self, bake_id: str, is_removed: bool) -> None:
        if is_removed:
            self._hub.bake_removed(bake_id)

    async def _forget_outcomes(self, before: datetime) -> int:
        forgotten = 0
        while more := await self._database.write(partial(remove_older, moment=before, limit=BATCH)):
            forgotten += more
        return forgotten


def _remove(connection: Connection, bake_id: str) -> bool:
    is_removed = bakes.remove_finished(connection, bake_id)
    if is_removed:
        record_removal(connection, [bake_id])
    return is_removed
