"""Jobs that go on while no server has their engine: what is asked of them is shown, and waits."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from msgspec.structs import replace

from neuro.domain.errors import Unavailable
from neuro.server.database.engine import Database
from neuro.server.jobs.intent_rows import stops_asked
from neuro.server.jobs.offers import Offers
from neuro.server.jobs.record import JobRecord


class Away:
    """What is said of them. Stops that nobody could do yet are rows, which are looked for here."""

    def __init__(self, database: Database, offers: Offers) -> None:
        self._database = database
        self._offers = offers

    def __contains__(self, record: JobRecord) -> bool:
        """Whether a job is not over, and no server had its engine a moment ago."""
        return record.is_active and not self._offers.is_held(record.engine)

    async def with_stops(self, records: list[JobRecord]) -> list[JobRecord]:
        """The same records, with why those of them are to end that are away."""
        ids = [record.id for record in records if record in self]
        if not ids:
            return records
        asked = await self._database.read(partial(stops_asked, job_ids=ids))
        return [
            replace(record, stop_reason=record.stop_reason or asked.get(record.id))
            for record in records
        ]

    def ending(self, record: JobRecord) -> str | None:
        """What the end of a job waits for that is to end."""
        if record.stop_reason is None or record not in self:
            return None
        return f"Ends when a server has the engine '{record.engine}' again"

    async def not_yet(self, record: JobRecord) -> str | None:
        """What is said to somebody who has just asked for a job's end, if nobody can end it now."""
        with suppress(Unavailable):
            await self._offers.holder_of(record.engine)
        if record not in self:
            return None
        engine = self._offers.engines.get(record.engine)
        if engine is None or not engine.of_this_machine:
            return (
                f"No server has the engine '{record.engine}' of job {record.id} now: the job ends"
                " as soon as one has it."
            )
        return (
            f"The machine of job {record.id} is away: no server has its engine '{record.engine}'"
            " now. The job ends when that server is back."
        )
