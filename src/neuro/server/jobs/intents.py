"""What people ask of jobs whose engine another server holds: rows that its holder reads and obeys.

An intent is kept when its row is there. The holder is told by the feed of changes, and removes the
row once the record that obeys it is written; whoever takes the engine over reads what is left. An
intent that is obeyed twice does no harm: the first reason of a stop stays, and a life span is a
number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from neuro.domain.jobs import Reason
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic
from neuro.server.fleet.changes import record as tell_others
from neuro.server.fleet.tables import intents
from neuro.server.jobs import tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer

_PAGE = 500
_STOP = "stop"
_LIFE_SPAN = "life_span"


class Intent(NamedTuple):
    """What somebody asks of a job: to end for a reason, or to live for so many minutes."""

    job_id: str
    kind: str
    value: str

    @classmethod
    def stop(cls, record: JobRecord, reason: Reason) -> Intent:
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
    ) -> None:
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._changes = changes

    async def ask(self, asked: Collection[Intent]) -> None:
        """Keep all of these in one transaction. Raises Unavailable."""
        await self._database.write(partial(_add, asked))
        self._changes.ring()

    async def obey(self, job_ids: Sequence[str] | None) -> list[str]:
        """Do what is asked of these jobs (None: of any) that are this server's.

        Returns those that are on their way to be, and have to be looked at again. Raises
        Unavailable: then the intents stay.
        """
        rows = await self._database.read(partial(_of, job_ids=job_ids))
        if not rows:
            return []
        obeyed = {intent.job_id for _, intent in rows if self._obey(intent)}
        await self._writer.flush()
        own = {intent.job_id for _, intent in rows if self._board.is_own(intent.job_id)}
        strange = {intent.job_id for _, intent in rows} - own
        active = await self._database.read(partial(tables.active_among, ids=sorted(strange)))
        # Another server's are that server's to obey, unless they are over.
        done = [
            sequence
            for sequence, intent in rows
            if intent.job_id in (obeyed & own) or intent.job_id in strange - active
        ]
        if done:
            await self._database.write(partial(_remove, done))
        return sorted(own - obeyed)

    def _obey(self, intent: Intent) -> bool:
        live = self._board.get(intent.job_id)
        if live is None:
            return False
        if intent.kind == _STOP:
            self._reconciler.stop(live, Reason(intent.value))
        elif intent.kind == _LIFE_SPAN:
            self._reconciler.set_life_span(live, int(intent.value))
        return True


def _add(asked: Iterable[Intent], connection: Connection) -> None:
    now = datetime.now(UTC)
    connection.execute(insert(intents), [{**intent._asdict(), "at": now} for intent in asked])
    tell_others(connection, Topic.INTENT, list(dict.fromkeys(intent.job_id for intent in asked)))


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
