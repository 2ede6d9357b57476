"""The records that expressions see. `FIELDS` of each is all that a dot reaches."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from neuro.flow.expressions.evaluator import EvaluationError
from neuro.flow.expressions.values import URI, Record

if TYPE_CHECKING:
    from neuro.domain.jobs import Job


@dataclass(frozen=True, slots=True)
class ProjectRecord(Record):
    """`project`: what the project file says."""

    FIELDS: ClassVar[frozenset[str]] = frozenset({"id", "owner", "role", "project_name"})

    id: str
    project_name: str
    owner: str | None
    role: str | None


@dataclass(frozen=True, slots=True)
class FlowRecord(Record):
    """`flow`: the workflow."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"flow_id", "project_id", "workspace", "title", "username", "id"}
    )

    flow_id: str
    project_id: str
    workspace: Path
    title: str
    username: str

    @property
    def id(self) -> str:
        """The older name of `flow_id`."""
        return self.flow_id


@dataclass(frozen=True, slots=True)
class ActionFlowRecord(FlowRecord):
    """`flow` in an action's file."""

    FIELDS: ClassVar[frozenset[str]] = FlowRecord.FIELDS | {"action_path"}

    action_path: Path


@dataclass(frozen=True, slots=True)
class VolumeRecord(Record):
    """A volume, ready to be mounted."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"id", "remote", "mount", "read_only", "local", "full_local_path"}
        | {"ref", "ref_ro", "ref_rw"}
    )

    id: str
    remote: URI
    mount: PurePosixPath
    read_only: bool = False
    local: Path | None = None
    full_local_path: Path | None = None

    @property
    def ref(self) -> str:
        return self.ref_ro if self.read_only else self.ref_rw

    @property
    def ref_ro(self) -> str:
        return f"{self.remote}:{self.mount}:ro"

    @property
    def ref_rw(self) -> str:
        return f"{self.remote}:{self.mount}:rw"


@dataclass(frozen=True, slots=True)
class ImageRecord(Record):
    """An image, and how to build it where `context` says from what."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"id", "ref", "context", "dockerfile", "dockerfile_rel", "build_args", "env"}
        | {"volumes", "build_preset", "force_rebuild", "extra_kaniko_args"}
    )

    id: str
    ref: str
    context: Path | URI | None
    dockerfile: Path | URI | None
    dockerfile_rel: PurePosixPath | None
    build_args: tuple[str, ...]
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    build_preset: str | None
    force_rebuild: bool
    extra_kaniko_args: str | None


@dataclass(frozen=True, slots=True)
class MultiRecord(Record):
    """`multi`: what a multi-job was called with; `args` is quoted for a shell."""

    FIELDS: ClassVar[frozenset[str]] = frozenset({"args", "suffix"})

    args: str
    suffix: str


@dataclass(frozen=True, slots=True)
class JobRecord(Record):
    """What `inspect_job()` tells of a job on the platform."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"id", "name", "owner", "status", "description", "tags", "image", "uri"}
        | {"http_url", "internal_hostname", "internal_hostname_named", "preset_name"}
    )

    id: str
    name: str | None
    owner: str
    status: str
    description: str | None
    tags: tuple[str, ...]
    image: str
    uri: str
    http_url: str | None
    internal_hostname: str | None
    internal_hostname_named: str | None
    preset_name: str | None

    @classmethod
    def of(cls, job: Job) -> JobRecord:
        return cls(
            id=job.id,
            name=job.name,
            owner=job.owner,
            status=job.status.value,
            description=job.description,
            tags=tuple(job.tags),
            image=job.container.image,
            uri=job.uri,
            http_url=job.http_url_named or job.http_url,
            internal_hostname=job.internal_hostname,
            internal_hostname_named=job.internal_hostname_named,
            preset_name=job.preset_name,
        )


class GitRecord(Record):
    """`git`: the repository around the current directory, asked when an expression asks."""

    FIELDS: ClassVar[frozenset[str]] = frozenset({"sha", "branch", "tags"})

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[tuple[str, ...], str] = {}

    @property
    def sha(self) -> str:
        return self._ask("rev-parse", "HEAD")

    @property
    def branch(self) -> str:
        return self._ask("rev-parse", "--abbrev-ref", "HEAD")

    @property
    def tags(self) -> list[str]:
        """The tags of the current commit; one empty string where there is none."""
        return self._ask("tag", "--points-at", "HEAD").split("\n")

    def _ask(self, *command: str) -> str:
        if command not in self._answers:
            try:
                done = subprocess.run(
                    ["git", *command],
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            except FileNotFoundError:
                raise EvaluationError(
                    "Git info is not available: the program `git` is not installed"
                ) from None
            if done.returncode:
                raise EvaluationError(
                    "Git info is not available: is this project under git?",
                    hint="`git init` and a first commit give `git` its values.",
                )
            self._answers[command] = done.stdout.strip()
        return self._answers[command]


class UnaskedGit(GitRecord):
    """`git` while files are checked: every answer is a commit that is nowhere."""

    def _ask(self, *command: str) -> str:
        return "0" * 40
