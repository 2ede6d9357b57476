"""The tokens that jobs are given (``--pass-config``, builds): each ends with its job.

A job that is over tells of it, and its tokens end at once. Whatever stood in the way of that (the
server was down, the disk was full) is made good by the sweep, which asks the database which jobs
are over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from neuro.domain.users import Token
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.jobs import lookups
from neuro.server.jobs.record import JobRecord

log = structlog.get_logger("neuro.jobs")

LIFE = timedelta(days=30)


class PassedTokens:
    """Issues and ends the tokens of one installation's jobs."""

    def __init__(
        self,
        database: Database,
        access: AccessService,
        is_active: Callable[[str], bool],
        background: Background,
    ) -> None:
        """``is_active`` says whether the job of an id is not over."""
        self._database = database
        self._is_active = is_active
        self._access = access
        self._errands = background.errands("end of the tokens of jobs")
        # By job: the run that a token was made for, and the token. A start may be tried again.
        self._issued: dict[str, tuple[int, Token]] = {}
        access.listen(self._token_ended)
        access.ask(lambda: [(token.user, token.id) for _, token in self._issued.values()])

    async def issue(self, record: JobRecord) -> str:
        """A token with which a run of a job acts in its owner's name.

        With that of a builder images are pulled and pushed, and nothing else is done. The same
        however often the run is asked for; what earlier runs were given ends. Raises NotFound
        without an owner, Unavailable.
        """
        issued = self._issued.get(record.id)
        if issued is not None and issued[0] == record.run:
            return issued[1].token or ""
        token = await self._access.pass_token(
            record.owner,
            job=record.id,
            label=f"job {record.id}",
            life=LIFE,
            images=record.specification.is_builder,
        )
        if not self._is_active(record.id):  # it ended meanwhile, and nobody would end this one
            await self._end(record.id)
            return token.token or ""
        self._issued[record.id] = record.run, token
        return token.token or ""

    def _token_ended(self, user: str, token_id: str | None) -> None:
        """Forget what somebody revoked; None means all of the user's."""
        for job_id, (_, token) in [*self._issued.items()]:
            if token.id == token_id or (token_id is None and token.user == user):
                del self._issued[job_id]

    def job_changed(self, record: JobRecord) -> None:
        """End the tokens of a job that is over; for ``Board.listen``."""
        if record.is_active or not record.specification.has_token:
            return
        self._issued.pop(record.id, None)
        self._errands.begin(self._end(record.id))

    async def _end(self, job_id: str) -> None:
        try:
            await self._access.end_tokens_of_jobs([job_id])
        except Exception as error:
            # They are not good all the same, and the sweep writes it down.
            log.error("cannot end a job's tokens yet", job=job_id, error=str(error))

    async def sweep(self) -> None:
        """End the tokens of all jobs that are over or gone, and forget those of long ago."""
        job_ids = await self._access.jobs_with_tokens()
        active = await self._database.read(partial(lookups.active_among, ids=job_ids))
        over = [job_id for job_id in job_ids if job_id not in active]
        if over:
            await self._access.end_tokens_of_jobs(over)
        await self._access.drop_old_tokens()

    async def close(self) -> None:
        """Finish what has begun."""
        await self._errands.finish()
