"""The records that expressions see. `FIELDS` of each is all that a dot reaches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    FIELDS: ClassVar[frozenset[str]] = frozenset({"id", "owner", "role", "project_name"})

    id: str
    owner: str | None
    role: str | None
    project_name: str | None


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    """A volume, ready to be mounted."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"id", "remote", "mount", "read_only", "local", "full_local_path"}
        | {"ref", "ref_ro", "ref_rw"}
    )

    id: str
    remote: str
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
class ImageRecord:
    """An image, and how to build it where `context` says from what."""

    FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"id", "ref", "context", "dockerfile", "dockerfile_rel", "build_args", "env"}
        | {"volumes", "build_preset", "force_rebuild", "extra_kaniko_args"}
    )

    id: str
    ref: str
    context: Path | str | None
    dockerfile: Path | str | None
    dockerfile_rel: PurePosixPath | None
    build_args: tuple[str, ...]
    env: Mapping[str, str]
    volumes: tuple[str, ...]
    build_preset: str | None
    force_rebuild: bool
    extra_kaniko_args: str | None
