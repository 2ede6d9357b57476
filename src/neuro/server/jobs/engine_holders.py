"""Which server has the engine of a job, and what is said where none has it or it is silent."""

from __future__ import annotations

from dataclasses import dataclass

from neuro.domain.errors import Unavailable
from neuro.domain.jobs import JobStatus
from neuro.server.jobs.board import Board
from neuro.server.jobs.offers import HeldBy, Offers
from neuro.server.jobs.record import JobRecord


@dataclass(frozen=True)
class EngineHolders:
    """Of all engines of one installation, as they are now."""

    board: Board
    offers: Offers

    def is_this_server(self, server: str) -> bool:
        """Whether this id is this server's, among those that share a database."""
        return self.offers.server == server

    async def other_than_this(self, record: JobRecord) -> HeldBy | None:
        """Which other server has the engine of a job; None where this one has it, or had.

        Raises Unavailable where no server has it now.
        """
        engine = record.engine
        if engine in self.board.lanes:
            return None
        found = await self.offers.holder_of(engine)
        if found is None and engine in self.offers.engines:
            raise Unavailable(
                f"No server has the engine '{engine}' of job {record.id} now"
                + self._outlook(record, "another one takes it over within seconds")
            )
        return found

    async def until_moved(self, record: JobRecord, held: HeldBy) -> None:
        """Return when the engine of a job, which another server had, is one more server's."""
        await self.offers.until_moved(record.engine, held)

    def does_not_answer(self, record: JobRecord) -> Unavailable:
        """What is said where the server that has the engine of a job cannot be reached."""
        return Unavailable(
            f"The server that has the engine '{record.engine}' of job {record.id} does not answer"
            + self._outlook(record, "another one takes over within seconds if it is gone")
        )

    def _outlook(self, record: JobRecord, shared: str) -> str:
        """The end of such a sentence; ``shared`` is what an engine of several servers has."""
        engine = self.offers.engines.get(record.engine)
        if engine is None or not engine.of_this_machine:
            return f": {shared}. Try again."
        if record.status is not JobStatus.RUNNING:
            return ". The job's output is back when that server is."
        return ". The job goes on without it; its output is back when that server is."
