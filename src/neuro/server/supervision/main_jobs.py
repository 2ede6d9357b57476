"""The job that drives an attempt: what it runs, and how what became of it is read. Pure."""

from __future__ import annotations

import math

from neuro.domain.bakes import Attempt, Bake
from neuro.domain.flows import Project, tag_form
from neuro.domain.images import EXECUTOR_IMAGE
from neuro.domain.jobs import JobRequest, JobStatus, Reason
from neuro.domain.life_spans import LONGEST_MINUTES
from neuro.server.jobs.record import JobRecord
from neuro.server.supervision.decisions import Executor

TAG = "remote_executor"
# The executor itself ends an attempt whose life span is over; its job's ends later, in case.
MARGIN_MINUTES = 60
DEFAULT_MINUTES = 10 * 24 * 60


def request(project: Project, bake: Bake) -> JobRequest:
    """The request to submit; always the same for a bake, as the idempotency key demands."""
    life_span = bake.meta.life_span
    minutes = DEFAULT_MINUTES if life_span is None else math.ceil(life_span / 60) + MARGIN_MINUTES
    return JobRequest(
        image=EXECUTOR_IMAGE,
        command=f"neuro-flow execute {bake.id}",
        description=f"Bake {bake.name or bake.id} of {bake.batch}",
        tags=[
            f"project:{tag_form(project.name)}",
            f"flow:{tag_form(bake.batch)}",
            tag_of(bake.id),
            TAG,
        ],
        max_run_time_minutes=min(minutes, LONGEST_MINUTES),
        pass_config=True,
    )


def key_of(attempt: Attempt) -> str:
    """The name of the submission of an attempt's next main job.

    It names the one that went before, so that each has one successor, whatever fails meanwhile.
    """
    first = f"{attempt.id}/executor"
    return first if attempt.executor_id is None else f"{first}/{attempt.executor_id}"


def tag_of(bake_id: str) -> str:
    """What tags all jobs of a bake."""
    return f"bake_id:{bake_id}"


def bake_of(record: JobRecord) -> str | None:
    """The bake that a main job drives, whoever submitted it; None for other jobs."""
    if not record.specification.control:
        return None
    tags = (tag for tag in record.specification.tags if tag.startswith(tag_of("")))
    return next((tag.partition(":")[2] for tag in tags), None)


def state_of(record: JobRecord | None) -> Executor:
    """The state of an attempt's executor; ``record`` is the job that it names, if any."""
    if record is None:
        # Nor does anybody know in whose name another one could be started.
        return Executor.TERMINAL
    if record.is_active:
        return Executor.ALIVE
    if record.status is JobStatus.CANCELLED and record.stop_reason == Reason.USER_REQUESTED:
        return Executor.KILLED_BY_USER
    if record.stop_reason == Reason.LIFE_SPAN_ENDED:
        return Executor.OUT_OF_TIME
    if record.stop_reason == Reason.ADDRESS_CHANGED:
        return Executor.STRANDED
    return Executor.DEAD
