"""What people ask of jobs whose engine another server holds: rows that its holder reads and obeys.

An intent is kept when its row is there. The holder is told by the feed of changes, and removes the
row once the record that obeys it is written; whoever takes the engine over reads what is left. An
intent that is obeyed twice does no harm: the first reason of a stop stays, and a life span is a
number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import structlog

from neuro.domain.errors import Unavailable
from neuro.domain.jobs import Reason
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes
from neuro.server.jobs import intent_rows, lookups
from neuro.server.jobs.board import Board
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.holding import Holding
from neuro.server.jobs.intent_rows import LIFE_SPAN, STOP, Intent
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")


class Intents:
    """Asks other servers, and does what they ask."""

    def __init__(
        self,
        database: Database,
        board: Board,
        writer: Writer,
        reconciler: Reconciler,
        changes: Changes,
        damaged: DamagedJobs,
    ) -> None:
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._changes = changes
        self._damaged = damaged

    async def ask(self, asked: Collection[Intent]) -> None:
        """Keep all of these in one transaction. Raises Unavailable."""
        await self._database.write(partial(intent_rows.add, asked))
        self._changes.ring()

    async def ask_life_span(self, record: JobRecord, reckon: Callable[[JobRecord], int]) -> int:
        """Keep that a job is to live for the minutes that ``reckon`` makes of its newest record.

        That has the life span that is asked for already. Returns the minutes. Raises Unavailable,
        and what ``reckon`` raises.
        """
        minutes = await self._database.write(partial(intent_rows.add_life_span, record, reckon))
        self._changes.ring()
        return minutes

    async def obey(self, job_ids: Sequence[str] | None) -> tuple[list[str], list[str]]:
        """Do what is asked of these jobs (None: of any) that are this server's.

        Returns those that are on their way to be, and those whose engine is away: both have to be
        looked at again. Raises Unavailable: then the intents stay.
        """
        rows = await self._database.read(partial(intent_rows.read, job_ids=job_ids))
        if not rows:
            return [], []
        done_under: dict[str, Holding | None] = {}
        for _, intent in rows:
            live = self._board.get(intent.job_id)
            if live is not None:
                done_under[live.id] = self._reconciler.holding(live.engine)
                self._obey(live, intent)
        await self._writer.flush()
        # What was written without the lease was dropped: whoever has it now has yet to obey.
        obeyed = {
            job_id
            for job_id, holding in done_under.items()
            if holding is not None and self._reconciler.has_kept(holding)
        }
        own = {intent.job_id for _, intent in rows if self._board.is_own(intent.job_id)}
        strange = {intent.job_id for _, intent in rows} - own
        active = await self._database.read(partial(lookups.active_among, ids=sorted(strange)))
        later: set[str] = set()
        for _, intent in rows:
            if intent.job_id in active and intent.kind == STOP:
                # Nobody has it on a board: it may be damaged.
                try:
                    await self._damaged.end(intent.job_id, intent.value)
                except Unavailable:
                    later.add(intent.job_id)  # Nothing else waits for it.
        if active:
            active = await self._database.read(partial(lookups.active_among, ids=sorted(active)))
        # Another server's are that server's to obey, unless they are over.
        done = [
            sequence
            for sequence, intent in rows
            if intent.job_id in (obeyed & own) or intent.job_id in strange - active
        ]
        if done:
            await self._database.write(partial(intent_rows.remove, done))
        return sorted(own - obeyed), sorted(later)

    def _obey(self, live: JobRecord, intent: Intent) -> None:
        try:
            if intent.kind == STOP:
                self._reconciler.stop(live, Reason(intent.value))
            elif intent.kind == LIFE_SPAN:
                self._reconciler.set_life_span(live, int(intent.value))
        except ValueError:
            # A newer version's words. Kept, it would hold up all that is asked after it.
            log.error(
                "cannot do what another server asks of a job", job=live.id, asked=intent.value
            )
