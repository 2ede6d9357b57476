"""Bakes and their tasks as JSON, for scripts: names that stay, times in RFC 3339."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from neuro.cli.render.json_text import line

if TYPE_CHECKING:
    from neuro.cli.output import Output
    from neuro.domain.bakes import Attempt, Bake, BakeImage, Task
    from neuro.flow.cli.board import Board


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


def task_document(task: Task) -> dict[str, Any]:
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
        "tasks": [{**task_document(it), "matrix": matrices.get(it.yaml_id)} for it in tasks],
        "images": [image_document(image) for image in images],
    }


def bake_line(bake: Bake, attempt: Attempt, ahead: Sequence[str] = ()) -> str:
    """What `bake --json` says of the bake itself; ``ahead`` are the bakes that it waits for."""
    return line({"event": "bake", **bake_document(bake, attempt), "waits_for": [*ahead]})


class JsonLines:
    """A line of JSON for each change of a bake that is watched; remarks go to standard error."""

    everything = True

    def __init__(self, out: Output) -> None:
        self._out = out
        self._ahead: Sequence[str] = ()
        self._reasons: Mapping[str, str] = {}

    def changed(self, board: Board, tasks: list[Task]) -> None:
        from msgspec.structs import replace

        if self._ahead != board.ahead and not board.attempt.result.is_finished:
            self._ahead = board.ahead
            self._out.print(bake_line(board.bake, board.attempt, board.ahead))
        reasons, told = board.reasons, self._reasons
        self._reasons = {**reasons}
        waiting = {it for it, reason in reasons.items() if told.get(it) != reason}
        changed = {task.yaml_id for task in tasks}
        for task in [*tasks, *(it for it in board.tasks if it.yaml_id in waiting - changed)]:
            shown = replace(task, message=task.message or reasons.get(task.yaml_id))
            self._out.print(line({"event": "task", **task_document(shown)}))
        self._out.flush()

    def say(self, text: str) -> None:
        self._out.note(text)


def image_document(image: BakeImage) -> dict[str, Any]:
    """An image of a bake."""
    return {"ref": image.ref, "status": image.status.value, "builder_job": image.builder_job_id}
