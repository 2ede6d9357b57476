"""Follows the jobs of the servers beside this one.

Each server says which jobs it has submitted or written; this reads their records, one look after
the other, so that none is ever older than the one before. A job of an engine that another server
holds is put on the board as it is; one that was submitted there for an engine of this server is
taken in. On SQLite nobody else is there, and nothing is ever looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

import structlog

from neuro.domain.errors import Unavailable
from neuro.server.background import Background, Kept
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic
from neuro.server.jobs import lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.intents import Intents
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.writer import Writer

log = structlog.get_logger("neuro.jobs")

RETRY_SECONDS = 1.0
PAUSE_SECONDS = 0.05  # until it is looked again at what could not be obeyed yet
_PAGE = 500


class JobFollower:
    """What is new of the other servers' jobs."""

    def __init__(
        self,
        database: Database,
        board: Board,
        writer: Writer,
        reconciler: Reconciler,
        intents: Intents,
        begin_anew: Callable[[], None],
    ) -> None:
        """``begin_anew`` is called where changes may have been missed."""
        self._database = database
        self._board = board
        self._writer = writer
        self._reconciler = reconciler
        self._intents = intents
        self._begin_anew = begin_anew
        self._jobs: dict[str, None] = {}
        self._asked: dict[str, None] = {}
        self._all_jobs = self._all_asked = False
        self._wake = asyncio.Event()
        self._kept: Kept | None = None

    def listen(self, changes: Changes) -> None:
        """Have all that changes from now on looked at, once this has started."""
        changes.listen(Topic.JOB, self.changed)
        changes.listen(Topic.INTENT, self.asked)

    async def start(self, background: Background) -> None:
        """Read what there is and is not this server's, and follow it. Raises Unavailable."""
        await self._look_at(await self._every())
        self._kept = background.keep("jobs of other servers", self._run)

    async def close(self) -> None:
        """Stop."""
        if self._kept is not None:
            await self._kept.stop()

    def changed(self, job_ids: Collection[str] | None) -> None:
        """Look at these jobs soon; None: at all."""
        if job_ids is None:
            self._all_jobs = True
        else:
            self._jobs.update(dict.fromkeys(job_ids))
        self._wake.set()

    def asked(self, job_ids: Collection[str] | None) -> None:
        """Look soon at what is asked of these jobs; None: of any."""
        if job_ids is None:
            self._all_asked = True
        else:
            self._asked.update(dict.fromkeys(job_ids))
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            jobs, self._jobs = self._jobs, {}
            asked, self._asked = self._asked, {}
            all_jobs, self._all_jobs = self._all_jobs, False
            all_asked, self._all_asked = self._all_asked, False
            try:
                if all_jobs:
                    self._begin_anew()
                    jobs.update(dict.fromkeys(await self._every()))
                await self._look_at(jobs)
                if all_asked or asked:
                    soon, later = await self._intents.obey(None if all_asked else list(asked))
                    for left, pause in ((soon, PAUSE_SECONDS), (later, RETRY_SECONDS)):
                        if left:
                            asyncio.get_running_loop().call_later(pause, self.asked, left)
            except Exception as error:
                # Nothing that was told of is forgotten.
                self._jobs = jobs | self._jobs
                self._asked = asked | self._asked
                self._all_jobs |= all_jobs
                self._all_asked |= all_asked
                self._wake.set()
                if not isinstance(error, Unavailable):  # which is logged where it is met
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def _every(self) -> list[str]:
        """All that may be another's: what is active, what was, and what somebody waits for."""
        active = await self._database.read(lookups.active_ids)
        known = (record.id for record in self._board.followed)
        return list(dict.fromkeys([*active, *known, *self._board.watched()]))

    async def _look_at(self, job_ids: Iterable[str]) -> None:
        # A job of this server's own is known better here, also one that is over and not written
        # yet; what is asked of the database after that is not older than its end.
        strange = [one for one in job_ids if not self._is_ours(one)]
        for start in range(0, len(strange), _PAGE):
            await self._look_at_some(strange[start : start + _PAGE])

    def _is_ours(self, job_id: str) -> bool:
        return self._board.is_own(job_id) or self._writer.unsaved(job_id) is not None

    async def _look_at_some(self, job_ids: Sequence[str]) -> None:
        before = {name: self._reconciler.holding(name) for name in self._board.lanes}
        found = await self._database.read(partial(tables.get_jobs, ids=job_ids))
        there = set()
        for record in found:
            there.add(record.id)
            if self._is_ours(record.id):
                continue
            holding = self._reconciler.holding(record.engine)
            if holding is None or not record.is_active:
                self._board.know(record)
            elif holding is before.get(record.engine):
                self._reconciler.arrived(record)
            else:
                # Taken meanwhile: it may have been among the jobs then, and be over by now.
                self.changed([record.id])
        for job_id in job_ids:
            if job_id not in there and not self._is_ours(job_id):
                self._board.forget(job_id)
