"""Live jobs: from what a file says to what the platform is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuro.flow.evaluate import names

if TYPE_CHECKING:
    from neuro.flow.evaluate.contexts import ImageRecord, VolumeRecord
    from neuro.flow.evaluate.environment import Effects, Environment

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class ResolvedJob:
    """A live job with every expression evaluated; times are seconds, tags are sorted."""

    id: str
    image: str
    description: str | None
    name: str | None
    preset: str | None
    schedule_timeout: float | None
    life_span: float | None
    http_port: int | None
    http_auth: bool | None
    entrypoint: str | None
    cmd: str | None
    workdir: str | None
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    tags: tuple[str, ...]
    detach: bool
    browse: bool
    port_forward: tuple[str, ...]
    pass_config: bool
    restart: str | None
    multi: bool
    suffix: str | None


class LiveWorkflow:
    """The live workflow of a project: its jobs, volumes and images."""

    project_id: str
    flow_id: str
    title: str
    job_ids: tuple[str, ...]
    volumes: Mapping[str, VolumeRecord]
    images: Mapping[str, ImageRecord]
    environment: Environment

    def is_multi(self, job_id: str) -> bool:
        raise NotImplementedError

    def params_of(self, job_id: str) -> Mapping[str, str | None]:
        """Return a job's parameters: the default as text, None where one must be given."""
        raise NotImplementedError

    def flow_tags(self) -> tuple[str, ...]:
        """Return the tags that all jobs of this workflow have."""
        return names.flow_tags(self.project_id, self.flow_id)

    def tags_of(self, job_id: str, suffix: str | None = None) -> tuple[str, ...]:
        """Return the tags that find a job, or one of a multi-job's, on the platform."""
        return names.job_tags(self.project_id, self.flow_id, job_id, suffix)

    def resolve(
        self,
        job_id: str,
        *,
        params: Mapping[str, str] = _NOTHING,
        suffix: str | None = None,
        args: tuple[str, ...] = (),
        effects: Effects,
    ) -> ResolvedJob:
        """Evaluate a job. Raises FlowError with every problem found."""
        raise NotImplementedError
