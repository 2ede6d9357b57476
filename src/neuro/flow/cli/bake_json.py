"""Bakes and their tasks as JSON, for scripts: names that stay, times in RFC 3339."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, BakeImage, Task


def bake_document(bake: Bake, attempt: Attempt | None) -> dict[str, Any]:
    """A bake and one of its attempts; ``status`` is None where none was ever made."""
    return {
        "id": bake.id,
        "name": bake.name,
        "batch": bake.batch,
        "owner": bake.owner,
        "tags": bake.tags,
        "params": bake.params,
        "created_at": bake.created_at,
        "finished_at": bake.finished_at,
        "attempt": attempt.number if attempt else None,
        "status": attempt.result.value if attempt else None,
        "started_at": attempt.created_at if attempt else None,
        "message": attempt.message if attempt else None,
        "executor": attempt.executor_id if attempt else None,
    }


def task_document(task: Task, matrix: Mapping[str, object] | None = None) -> dict[str, Any]:
    """A task; ``seconds`` is how long it ran, or has run so far."""
    from neuro.flow.cli.bake_looks import finished_at, started_at, took

    duration = took(task, datetime.now(UTC))
    return {
        "id": task.yaml_id,
        "status": task.status.value,
        "job": task.raw_id,
        "started_at": started_at(task),
        "finished_at": finished_at(task),
        "seconds": round(duration.total_seconds(), 3) if duration is not None else None,
        "matrix": dict(matrix) if matrix is not None else None,
        "outputs": task.outputs,
        "message": task.message,
    }


def inspect_document(
    bake: Bake,
    attempt: Attempt,
    tasks: Sequence[Task],
    matrices: Mapping[str, Mapping[str, object]],
    images: Sequence[BakeImage],
) -> dict[str, Any]:
    """An attempt of a bake, with its tasks, whose matrix values are given by id, and its images."""
    return {
        **bake_document(bake, attempt),
        "tasks": [task_document(task, matrices.get(task.yaml_id)) for task in tasks],
        "images": [image_document(image) for image in images],
    }


def image_document(image: BakeImage) -> dict[str, Any]:
    """An image of a bake."""
    return {"ref": image.ref, "status": image.status.value, "builder_job": image.builder_job_id}
