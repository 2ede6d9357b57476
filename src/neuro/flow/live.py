"""The platform's side of a live workflow: which jobs of it there are, and which are known.

A live job is found again by its tags: ``project:``, ``flow:``, ``job:`` and, for one of several
of a multi-job, ``multi:``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from neuro.domain.jobs import ACTIVE, FINISHED, Job, JobFilter, JobStatus

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.flow.evaluate.jobs import LiveWorkflow

# What ended longer ago is forgotten.
RECENT = timedelta(days=7)
MULTI = "multi:"
_STARTED = (JobStatus.PENDING, JobStatus.RUNNING)


class LiveRow(NamedTuple):
    """A job of the workflow, or one of a multi-job's, and what it last was on the platform."""

    job_id: str
    suffix: str | None
    job: Job | None

    @property
    def label(self) -> str:
        """``train``, or ``multitrain a``."""
        return label(self.job_id, self.suffix)


def label(job_id: str, suffix: str | None) -> str:
    """A job's name in messages."""
    return job_id if suffix is None else f"{job_id} {suffix}"


class LiveJobs:
    """The jobs that a live workflow's user has on the platform."""

    def __init__(self, client: Client, workflow: LiveWorkflow) -> None:
        self._client = client
        self._workflow = workflow

    async def rows(self) -> list[LiveRow]:
        """Every job of the workflow, by id; a multi-job once for each suffix that is known."""
        jobs = [*await self._active(()), *await self._ended(())]
        return rows(self._workflow, jobs)

    async def find(self, job_id: str, suffix: str | None = None) -> Job | None:
        """The newest one that has not ended, else the newest that ended lately."""
        tags = self._workflow.tags_of(job_id, suffix)
        return newest(await self._active(tags)) or newest(await self._ended(tags, limit=1))

    async def active(self, tags: Sequence[str] = ()) -> list[Job]:
        """The pending, suspended and running jobs, newest first."""
        return await self._active(tags)

    async def _active(self, tags: Sequence[str]) -> list[Job]:
        return await self._list(JobFilter(status=sorted(ACTIVE), tag=[*tags]))

    async def _ended(self, tags: Sequence[str], limit: int | None = None) -> list[Job]:
        since = datetime.now(UTC) - RECENT
        query = JobFilter(status=sorted(FINISHED), tag=[*tags], since=since, limit=limit)
        return await self._list(query)

    async def _list(self, query: JobFilter) -> list[Job]:
        import msgspec

        whole = msgspec.structs.replace(
            query,
            tag=query.tag or [*self._workflow.flow_tags()],
            # An administrator sees everybody's jobs: those of another's project of the same name
            # are not this one's.
            owner=[self._client.user],
            cluster_name=self._client.cluster,
            reverse=True,
        )
        async with aclosing(self._client.jobs.list(whole)) as found:
            return [job async for job in found]

    async def register(self) -> None:
        """Let the server know the project and its live jobs, as far as it does not yet."""
        flows = self._client.flows
        workflow = self._workflow
        project = await flows.get_or_create_project(workflow.project_id)
        known = {it.yaml_id: (it.multi, it.tags) for it in await flows.live_jobs(project.id)}
        for job_id in workflow.job_ids:
            multi, tags = workflow.is_multi(job_id), [*workflow.tags_of(job_id)]
            if known.get(job_id) != (multi, tags):
                await flows.replace_live_job(project.id, job_id, multi=multi, tags=tags)


def rows(workflow: LiveWorkflow, jobs: Iterable[Job]) -> list[LiveRow]:
    """Sort the platform's jobs to those of the workflow."""
    by_tag: dict[str, list[Job]] = {}
    for job in jobs:
        for tag in job.tags:
            by_tag.setdefault(tag, []).append(job)
    flow_tags = set(workflow.flow_tags())
    found: list[LiveRow] = []
    for job_id in workflow.job_ids:
        (tag,) = set(workflow.tags_of(job_id)) - flow_tags
        mine = by_tag.get(tag, [])
        if not workflow.is_multi(job_id):
            found.append(LiveRow(job_id, None, newest(mine)))
            continue
        by_suffix: dict[str, list[Job]] = {}
        for job in mine:
            for suffix in suffixes(job):
                by_suffix.setdefault(suffix, []).append(job)
        found += [
            LiveRow(job_id, suffix, newest(them)) for suffix, them in sorted(by_suffix.items())
        ]
        if not by_suffix:
            found.append(LiveRow(job_id, None, None))
    return found


def suffixes(job: Job) -> list[str]:
    """The suffix of one of a multi-job's."""
    return [tag.removeprefix(MULTI) for tag in job.tags if tag.startswith(MULTI)]


def newest(jobs: Iterable[Job]) -> Job | None:
    """The newest that is pending or running; where none is, the newest."""
    ordered = sorted(jobs, key=lambda job: job.history.created_at, reverse=True)
    return next((job for job in ordered if job.status in _STARTED), next(iter(ordered), None))
