"""Looks up the bakes, attempts, tasks and batches that a command line names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.failures import Failed

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, Graphs, Task
    from neuro.flow.workspace import Workspace

LAST = -1
_BAKE_ID = re.compile(r"bake-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BATCH = re.compile(r"^[\"']?kind[\"']?\s*:\s*[\"']?batch\b", re.MULTILINE)
# Keys that only actions have: batches call them, and they cannot be baked.
_ACTION = re.compile(r"^[\"']?(?:inputs|outputs)[\"']?\s*:", re.MULTILINE)

# How ids begin that nobody wrote: of tasks without one, and of what ends stateful actions.
_MADE_UP = ("task", "post")


def is_bake_id(text: str) -> bool:
    """Whether a string has the shape of a bake's id."""
    return _BAKE_ID.fullmatch(text) is not None


def batch_names(workspace: Workspace) -> list[str]:
    """The batches of a project, as ``bake`` takes them."""
    found = set()
    for suffix in ("*.yml", "*.yaml"):
        for path in workspace.config_dir.rglob(suffix):
            text = path.read_text("utf-8-sig", errors="replace") if path.is_file() else ""
            if _BATCH.search(text) and not _ACTION.search(text):
                found.add(path.relative_to(workspace.config_dir).with_suffix("").as_posix())
    return sorted(found)


def check_batch(context: FlowContext, name: str) -> str:
    """The batch as the server knows it. Raises Failed where the project does not have it."""
    folder: Path = context.workspace.config_dir
    batch = _inside(folder, folder / name)
    is_there = any((folder / f"{batch}{suffix}").exists() for suffix in (".yml", ".yaml"))
    if is_there and not batch.startswith("../"):
        return batch
    known = batch_names(context.workspace)
    if (meant := _inside(folder, Path.cwd() / name)) in known:
        raise Failed(f"There is no batch {name}. The batch in this file is called '{meant}'.")
    if _is_job(context, name):
        raise Failed(f"There is no batch {name}, but a job: `neuro-flow run {name}` runs it.")
    raise no_such("batch", name, known, f"It would be {folder}/{batch}.yml")


def _is_job(context: FlowContext, name: str) -> bool:
    try:
        return name in context.workflow.job_ids
    except Exception:  # There may be no live.yml, or a broken one: a hint is not worth an error.
        return False


def _inside(folder: Path, path: Path) -> str:
    """The name of the batch whose file this is."""
    found = os.path.relpath(path, folder)
    return found.removesuffix(".yml").removesuffix(".yaml")


def no_such(what: str, name: str, known: Iterable[str], otherwise: str) -> Failed:
    """The sentence for a name that is not there, with the nearest one, or else with advice."""
    from neuro.domain.problems import nearest

    hint = nearest(name, known) or f"{otherwise}."
    return Failed(f"There is no {what} {name}. {hint}")


def task_names(graphs: Graphs) -> set[str]:
    """The names that people may mean: every task, and the placeholders of rows of a matrix.

    >>> sorted(task_names({"": {"fit": []}, "fit": {"fit.row-1": [], "fit.row-2": []}}))
    ['fit', 'fit.row', 'fit.row-1', 'fit.row-2']
    """
    from neuro.flow.batch.layers import label

    found = set[str]()
    for prefix, nodes in graphs.items():
        found.update(nodes)
        for node in nodes:
            # An id that people write has no dash: what follows one tells rows apart.
            written, dash, row = label(prefix, node).partition("-")
            if dash and written not in _MADE_UP:
                found.add(node.removesuffix(f"-{row}"))
    return found


def server_project(context: FlowContext) -> str | None:
    """The id that the server has for the project; None before its first bake or run."""
    found = context.run(context.client.flows.project_by_name(context.project.id))
    return found.id if found is not None else None


def find_bake(context: FlowContext, text: str) -> Bake:
    """The bake with this id, or the newest of this name. Raises Failed."""
    from neuro.domain.errors import NotFound

    bakes = context.client.bakes
    project_id = None
    if not is_bake_id(text):
        project_id = server_project(context)
        found = context.run(bakes.by_name(project_id, text)) if project_id else None
        if found is not None:
            return found
    try:
        return context.run(bakes.get(text))
    except NotFound:
        known = _all(context, project_id)
        names = {bake.name for bake in known if bake.name}
        advice = "`neuro-flow bakes` lists them all"
        if last := next((bake for bake in reversed(known) if bake.batch == text), None):
            from neuro.flow.cli.bake_looks import called

            # Near names of other bakes are not what is meant.
            names, advice = set(), f"It is a batch, and its last bake is {called(last)}"
        raise no_such("bake", text, names, advice) from None


def _all(context: FlowContext, project_id: str | None) -> list[Bake]:
    from neuro.domain.bakes import BakeFilter

    if project_id is None:
        return []
    return context.run(context.client.bakes.list(BakeFilter(project_id=project_id)))


def find_attempt(context: FlowContext, bake: Bake, number: int) -> Attempt:
    """The attempt of a bake with this number; LAST for its last one. Raises Failed."""
    if number == LAST and bake.last_attempt is not None:
        return bake.last_attempt
    found = context.run(context.client.bakes.attempt(bake.id, number))
    if found is not None:
        return found
    from neuro.flow.cli.bake_looks import called

    last = bake.last_attempt
    if last is None:
        raise Failed(f"Bake {called(bake)} has no attempt: its submission was interrupted.")
    said = "#1" if last.number == 1 else f"#1 to #{last.number}"
    raise Failed(f"Bake {called(bake)} has no attempt #{number}; it has {said}.")


def find_task(tasks: Iterable[Task], task_id: str) -> Task | None:
    """The task with this id."""
    return next((task for task in tasks if task.yaml_id == task_id), None)
