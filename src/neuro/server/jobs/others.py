"""What the part for jobs has of the servers beside this one, where there may be any."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from neuro.server.fleet.changes import Changes
from neuro.server.jobs.board import Board
from neuro.server.jobs.follower import JobFollower
from neuro.server.jobs.intent_rows import Intent
from neuro.server.jobs.intents import Intents
from neuro.server.jobs.offers import Offers
from neuro.server.jobs.record import JobRecord


@dataclass(frozen=True)
class Others:
    """Asks the others, and follows them."""

    board: Board
    changes: Changes
    follower: JobFollower
    intents: Intents
    offers: Offers

    def submitted(self, record: JobRecord) -> None:
        """A job was accepted for an engine that was not this server's when that began."""
        self.board.know(record)
        # It may be by now, and its holder may have done with the job already.
        self.follower.changed([record.id])

    async def ask_life_span(self, record: JobRecord, reckon: Callable[[JobRecord], int]) -> int:
        """The same of a life span that is reckoned from the newest: see ``Intents``."""
        minutes = await self.intents.ask_life_span(record, reckon)
        self.follower.asked([record.id])
        return minutes

    async def ask(self, asked: Collection[Intent]) -> None:
        """Keep what is asked of jobs, for whoever has their engines. Raises Unavailable."""
        if not asked:
            return
        await self.intents.ask(asked)
        # A job may be on its way to this server.
        self.follower.asked([intent.job_id for intent in asked])
