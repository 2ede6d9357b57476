"""The sections that live files and batches share, evaluated: defaults, volumes, images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from neuro.flow.evaluate.contexts import ImageRecord, ProjectRecord, VolumeRecord
from neuro.flow.evaluate.mixins import overlay
from neuro.flow.expressions.values import URI
from neuro.flow.syntax.tree import LiveDefaults

if TYPE_CHECKING:
    from neuro.flow.evaluate.values import ValueEvaluator
    from neuro.flow.problems import Report
    from neuro.flow.syntax.tree import Image, ProjectFile, Volume
    from neuro.flow.syntax.types import Value

D = TypeVar("D", bound=LiveDefaults)


@dataclass(frozen=True, slots=True)
class EvaluatedDefaults:
    """What jobs have unless they say otherwise, evaluated."""

    env: Mapping[str, str]
    tags: tuple[str, ...]
    volumes: tuple[str, ...] = ()
    workdir: str | None = None
    preset: str | None = None
    life_span: float | None = None
    schedule_timeout: float | None = None


def evaluate_defaults(defaults: LiveDefaults, values: ValueEvaluator) -> EvaluatedDefaults:
    """Evaluate what jobs and tasks have unless they say otherwise."""
    return EvaluatedDefaults(
        env=values.env(defaults.env),
        tags=values.texts(defaults.tags),
        volumes=values.mounts(defaults.volumes),
        workdir=values.text(defaults.workdir),
        preset=values.text(defaults.preset),
        life_span=values.number(defaults.life_span) or None,
        schedule_timeout=values.number(defaults.schedule_timeout) or None,
    )


def evaluate_volume(key: str, volume: Volume, values: ValueEvaluator, root: Path) -> VolumeRecord:
    """Evaluate an entry of `volumes`; local folders are below the workspace's root."""
    local = values.one(volume.local)
    mount = values.one(volume.mount)
    return VolumeRecord(
        id=key,
        remote=URI(values.text(volume.remote) or ""),
        mount=mount if isinstance(mount, PurePosixPath) else PurePosixPath("/"),
        read_only=bool(values.flag(volume.read_only)),
        local=local if isinstance(local, Path) else None,
        full_local_path=_below(root, local) if isinstance(local, Path) else None,
    )


def evaluate_image(
    key: str, image: Image, values: ValueEvaluator, root: Path, report: Report
) -> ImageRecord:
    """Evaluate an entry of `images`; local contexts are below the workspace's root."""
    context, dockerfile = values.text(image.context), values.text(image.dockerfile)
    full_context, full_dockerfile, relative = None, None, None
    if context is not None and dockerfile is not None:
        if is_storage(context) != is_storage(dockerfile):
            report.add(
                "Mixed local/storage context is not supported: "
                f"context is {context}, dockerfile is {dockerfile}",
                image.at,
            )
        else:
            full_context, full_dockerfile = _place(root, context), _place(root, dockerfile)
            if isinstance(full_context, Path) and not full_context.is_relative_to(
                os.path.normpath(root)
            ):
                report.add(
                    f"The context {context} leads out of the workspace",
                    image.context.at if image.context is not None else image.at,
                )
            relative = _inside(str(full_context), str(full_dockerfile))
            if relative is None:
                report.add(
                    f"The dockerfile should be inside the context: {dockerfile} is not "
                    f"in {context}",
                    image.dockerfile.at if image.dockerfile is not None else image.at,
                )
    return ImageRecord(
        id=key,
        ref=values.text(image.ref) or "",
        context=full_context,
        dockerfile=full_dockerfile,
        dockerfile_rel=relative,
        build_args=values.texts(image.build_args),
        env=values.env(image.env),
        volumes=values.mounts(image.volumes),
        build_preset=values.text(image.build_preset),
        force_rebuild=bool(values.flag(image.force_rebuild)),
        extra_kaniko_args=values.text(image.extra_kaniko_args),
    )


def is_storage(place: str) -> bool:
    """Whether a build context, or a dockerfile, is on the platform's storage."""
    return place.startswith("storage")


def _place(root: Path, place: str) -> Path | URI:
    return URI(place) if is_storage(place) else _below(root, Path(place))


def _below(root: Path, path: Path) -> Path:
    """Join and tidy a path without following links."""
    return Path(os.path.normpath(root / path))


def _inside(folder: str, file: str) -> PurePosixPath | None:
    try:
        return PurePosixPath(file).relative_to(folder.rstrip("/") or "/")
    except ValueError:
        return None


def project_record(project_id: str, project: ProjectFile | None, user: str) -> ProjectRecord:
    """Make the `project` context of who evaluates it.

    The platform keeps things by owner, so the `project_name` that files build addresses from
    (`storage:/${{ project.project_name }}/data`) is the owner's name, unless the file has another.
    """
    owner = role = name = None
    if project is not None:
        owner, role = constant_text(project.owner), constant_text(project.role)
        name = constant_text(project.project_name)
    return ProjectRecord(project_id, name or owner or user, owner, role)


def merged_defaults(own: D, project: ProjectFile | None) -> D:
    """Lay a workflow's defaults over the project's."""
    if project is None or project.defaults is None:
        return own
    return overlay(own, project.defaults)


def constant_text(value: Value | None) -> str | None:
    """Return a string that takes no expressions."""
    return None if value is None or value.constant is None else str(value.constant)


def constant_flag(value: Value | None) -> bool:
    """Return a bool that takes no expressions."""
    return value is not None and bool(value.constant)
