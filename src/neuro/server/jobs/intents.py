"""What people ask of jobs whose engine another server holds: rows that its holder reads and obeys.

An intent is kept when its row is there. The holder is told by the feed of changes, and removes the
row once the record that obeys it is written; whoever takes the engine over reads what is left. An
intent that is obeyed twice does no harm: the first reason of a stop stays, and a life span is a
number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

import structlog
from msgspec.structs import replace
from sqlalchemy import Connection, delete, insert, select, text

from neuro.domain.jobs import Reason
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.fleet.tables import intents
from neuro.server.jobs import lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.holding import Holding
from neuro.server.jobs.lookups import Whose
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")

_PAGE = 500
_STOP = "stop"
_LIFE_SPAN = "life_span"
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:job, 0))")


class Intent(NamedTuple):
    """What somebody asks of a job: to end for a reason, or to live for so many minutes."""

    job_id: str
    kind: str
    value: str

    @classmethod
    def stop(cls, record: JobRecord | Whose, reason: Reason) -> Intent:
        return cls(record.id, _STOP, reason.value)

    @classmethod
    def life_span(cls, record: JobRecord, minutes: int) -> Intent:
        return cls(record.id, _LIFE_SPAN, str(minutes))


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
        await self._database.write(partial(_add, asked))
        self._changes.ring()

    async def ask_life_span(self, record: JobRecord, reckon: Callable[[JobRecord], int]) -> int:
        """Keep that a job is to live for the minutes that ``reckon`` makes of its newest record.

        That has the life span that is asked for already. Returns the minutes. Raises Unavailable,
        and what ``reckon`` raises.
        """
        minutes = await self._database.write(partial(_add_life_span, record, reckon))
        self._changes.ring()
        return minutes

    async def obey(self, job_ids: Sequence[str] | None) -> list[str]:
        """Do what is asked of these jobs (None: of any) that are this server's.

        Returns those that are on their way to be, and have to be looked at again. Raises
        Unavailable: then the intents stay.
        """
        rows = await self._database.read(partial(_of, job_ids=job_ids))
        if not rows:
            return []
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
        for _, intent in rows:
            if intent.job_id in active and intent.kind == _STOP:
                # Nobody has it on a board: it may be damaged.
                await self._damaged.end(intent.job_id, intent.value)
        if active:
            active = await self._database.read(partial(lookups.active_among, ids=sorted(active)))
        # Another server's are that server's to obey, unless they are over.
        done = [
            sequence
            for sequence, intent in rows
            if intent.job_id in (obeyed & own) or intent.job_id in strange - active
        ]
        if done:
            await self._database.write(partial(_remove, done))
        return sorted(own - obeyed)

    def _obey(self, live: JobRecord, intent: Intent) -> None:
        try:
            if intent.kind == _STOP:
                self._reconciler.stop(live, Reason(intent.value))
            elif intent.kind == _LIFE_SPAN:
                self._reconciler.set_life_span(live, int(intent.value))
        except ValueError:
            # A newer version's words. Kept, it would hold up all that is asked after it.
            log.error(
                "cannot do what another server asks of a job", job=live.id, asked=intent.value
            )


def stops_asked(connection: Connection, job_ids: Sequence[str]) -> dict[str, str]:
    """Of these jobs the ones that are asked to end, and have not been yet, with the reasons."""
    rows = _of(connection, job_ids)
    return {intent.job_id: intent.value for _, intent in reversed(rows) if intent.kind == _STOP}


def _add(asked: Collection[Intent], connection: Connection) -> None:
    # What is asked again adds no row, however often that is while nobody has the engine. Of stops
    # the first stays, as its reason does; of life spans the last.
    stops = list({intent.job_id for intent in asked if intent.kind == _STOP})
    known: set[str] = set()
    for start in range(0, len(stops), _PAGE):
        some = intents.c.job_id.in_(stops[start : start + _PAGE])
        found = select(intents.c.job_id).where(some, intents.c.kind == _STOP)
        known.update(connection.execute(found).scalars())
    now = datetime.now(UTC)
    rows = []
    for intent in asked:
        if intent.kind == _STOP and intent.job_id in known:
            continue
        if intent.kind != _STOP:
            same = (intents.c.job_id == intent.job_id) & (intents.c.kind == intent.kind)
            connection.execute(delete(intents).where(same))
        rows.append({**intent._asdict(), "at": now})
    if rows:
        connection.execute(insert(intents), rows)
    tell_others(connection, Topic.INTENT, list(dict.fromkeys(intent.job_id for intent in asked)))


def _add_life_span(
    record: JobRecord, reckon: Callable[[JobRecord], int], connection: Connection
) -> int:
    if connection.dialect.name == "postgresql":
        # One after the other, or of two who add minutes one adds nothing. Whoever has the engine
        # is not kept waiting by this, also where this server is frozen now.
        connection.execute(_LOCK, {"job": record.id})
    # In this order: a intent is removed after its record is written.
    same = (intents.c.job_id == record.id) & (intents.c.kind == _LIFE_SPAN)
    asked = select(intents.c.value).where(same).order_by(intents.c.sequence.desc()).limit(1)
    pending = connection.execute(asked).scalar()
    newest = tables.get_job(connection, record.id) or record
    if pending is not None:
        newest = replace(newest, max_run_time_minutes=int(pending))
    minutes = reckon(newest)
    _add([Intent.life_span(record, minutes)], connection)
    return minutes


def _of(connection: Connection, job_ids: Sequence[str] | None) -> list[tuple[int, Intent]]:
    statement = select(intents).order_by(intents.c.sequence)
    found = []
    for start in range(0, 1 if job_ids is None else len(job_ids), _PAGE):
        page = statement
        if job_ids is not None:
            page = statement.where(intents.c.job_id.in_(job_ids[start : start + _PAGE]))
        for row in connection.execute(page):
            found.append((row.sequence, Intent(row.job_id, row.kind, row.value)))
    return found


def _remove(sequences: Sequence[int], connection: Connection) -> None:
    for start in range(0, len(sequences), _PAGE):
        some = sequences[start : start + _PAGE]
        connection.execute(delete(intents).where(intents.c.sequence.in_(some)))
