"""A job as the cells of a table: the columns of ``neuro ps`` and ``neuro top``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from neuro.cli.render.columns import Known, Shown
from neuro.cli.render.table import Cell, Line
from neuro.cli.render.times import ago, iso_seconds, life_span
from neuro.cli.render.uris import short_image
from neuro.domain.jobs import Job, JobStatus

PS_DEFAULT = "id name status when image owner cluster_name description"
# What a narrow terminal is shown instead, the first that fits: an id alone takes 40 columns.
PS_NARROWER = (
    "id name status when image owner description",
    "id name status when image description",
    "id name status when image",
    "id/name status when image",
    "id/name status when",
)
PS_ALL_OWNERS = "id owner name status when preset reason"
PS_ALL_OWNERS_NARROWER = (
    "id/name owner status when preset reason",
    "id/name owner status when reason",
    "id/name owner status when",
    "id/owner/name status when",
)
PS_COLUMNS: dict[str, Known] = {
    "id": Known("ID", max=40, shrinks=False),
    "name": Known("NAME", max=40),
    "tags": Known("TAGS", max=40),
    "status": Known("STATUS", max=10, shrinks=False),
    "when": Known("WHEN", max=32, shrinks=False),
    "created": Known("CREATED", max=25, shrinks=False),
    "started": Known("STARTED", max=25, shrinks=False),
    "finished": Known("FINISHED", max=25, shrinks=False),
    "image": Known("IMAGE", max=40),
    "owner": Known("OWNER", max=25),
    "cluster_name": Known("CLUSTER", max=15),
    "org_name": Known("ORG", max=25),
    "description": Known("DESCRIPTION", max=50),
    "command": Known("COMMAND", max=100),
    "life_span": Known("LIFE-SPAN", shrinks=False),
    "workdir": Known("WORKDIR", max=40),
    "preset": Known("PRESET"),
    "reason": Known("REASON", max=60),
}
STATUS_COLORS = {
    JobStatus.PENDING: "cyan",
    JobStatus.SUSPENDED: "magenta",
    JobStatus.RUNNING: "blue",
    JobStatus.SUCCEEDED: "green",
    JobStatus.CANCELLED: "yellow",
    JobStatus.FAILED: "red",
}


class View(NamedTuple):
    """Who looks, and when. ``iso_dates``: full dates in place of ``6 seconds ago``."""

    user: str
    now: datetime
    iso_dates: bool = False

    def time(self, moment: datetime | None) -> str:
        if moment is None:
            return ""
        return iso_seconds(moment, self.now) if self.iso_dates else ago(moment, self.now)


def job_row(job: Job, columns: Sequence[Shown], view: View) -> list[Cell]:
    """The cells of one job."""
    return [tuple(job_line(job, name, view) for name in column.ids) for column in columns]


def job_line(job: Job, column: str, view: View) -> Line:
    """One value of a job, by the name of its column."""
    if column == "status":
        return Line(job.status.value, STATUS_COLORS.get(job.status))
    return Line(_text(job, column, view))


def when(job: Job) -> datetime | None:
    """The time that matters in the job's status: since when it is in it."""
    history = job.history
    if job.status.is_finished:
        return history.finished_at or history.created_at
    if job.status is JobStatus.RUNNING:
        return history.started_at or history.created_at
    return history.created_at


def _text(job: Job, column: str, view: View) -> str:
    container, history = job.container, job.history
    match column:
        case "id":
            return job.id
        case "tags":
            return ", ".join(job.tags)
        case "when":
            return view.time(when(job))
        case "created" | "started" | "finished":
            return view.time(getattr(history, f"{column}_at"))
        case "image":
            return short_image(job, view.user)
        case "owner":
            return "<you>" if job.owner == view.user else job.owner
        case "command":
            return container.command or ""
        case "life_span":
            return life_span(job.max_run_time_minutes)
        case "workdir":
            return container.working_dir or ""
        case "preset":
            return job.preset_name or ""
        case "reason":
            return history.description or history.reason or ""
        case _:
            return getattr(job, column) or ""
