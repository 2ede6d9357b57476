"""Jobs of a bake that no task is known to have, or not yet. Pure."""

from __future__ import annotations

from neuro.domain.jobs import JobState


class Unclaimed:
    """Their newest states.

    A job may be heard of before the submission that made it is answered, also of its end. Those
    that a lost executor made, and that are in no record, stay.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, JobState] = {}
        self._submissions = 0

    def asked(self) -> None:
        """A submission is under way."""
        self._submissions += 1

    def answered(self) -> None:
        """A submission is under way no more."""
        self._submissions -= 1
        if not self._submissions:
            for job in [job for job in self._jobs.values() if job.status.is_finished]:
                del self._jobs[job.id]

    def see(self, job: JobState) -> None:
        """Take the state of a job that nobody has."""
        # One that is over may still be the answer to a submission under way.
        if self._submissions or not job.status.is_finished:
            self._jobs[job.id] = job
        else:
            self._jobs.pop(job.id, None)

    def claim(self, job_id: str) -> JobState | None:
        """The state of a job that turns out to be a task's."""
        return self._jobs.pop(job_id, None)

    def strays(self, tag: str) -> list[str]:
        """Those with this tag that are not over."""
        return [
            job.id for job in self._jobs.values() if not job.status.is_finished and tag in job.tags
        ]
