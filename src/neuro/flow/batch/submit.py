"""Making a bake, and another attempt of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from neuro.domain.bakes import (
    Attempt,
    AttemptRequest,
    Bake,
    BakeImageRequest,
    BakeMeta,
    BakeRequest,
    ConfigFileRequest,
    ConfigsMeta,
    Graphs,
    Kept,
    Task,
    TaskStatus,
)
from neuro.domain.errors import Conflict, InvalidInput, NotFound
from neuro.flow.batch.contexts import send_contexts
from neuro.flow.batch.stored import is_foreign
from neuro.flow.order import in_order

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.client.storage import Progress
    from neuro.flow.batch.plan import Plan

MAX_ATTEMPTS = 99
FILES_AT_ONCE = 4
_DONE = (TaskStatus.SUCCEEDED, TaskStatus.CACHED)
_FLOW, _PROJECT = "flow", "project"


class NothingLeft(InvalidInput):
    """A restart that keeps what succeeded, where all of it has."""


def meta_of(plan: Plan) -> BakeMeta:
    """The circumstances of a bake, as far as its plan knows them."""
    workflow = plan.workflow
    return BakeMeta(
        git_info=plan.git,
        hashes=dict(plan.hashes),
        life_span=plan.life_span,
        concurrency=plan.concurrency,
        flow_id=workflow.flow_id if workflow.flow_id != workflow.batch else None,
    )


async def submit(
    client: Client,
    plan: Plan,
    *,
    name: str | None,
    tags: Sequence[str],
    progress: Progress | None = None,
) -> tuple[Bake, Attempt]:
    """Keep a planned bake on the server, with its files; nothing runs yet.

    ``progress`` is told of what its images are built from. Raises Conflict where a bake of that
    name has not ended, DockerfileError, and what ``send_contexts`` does.
    """
    workflow = plan.workflow
    images = await send_contexts(client, workflow.project_id, plan.images, progress)
    plan = replace(plan, images=images)
    project = await client.flows.get_or_create_project(workflow.project_id)
    bake = await client.bakes.create(
        BakeRequest(
            project_id=project.id,
            batch=workflow.batch,
            graphs=plan.graphs,
            params=dict(plan.params),
            name=name,
            tags=[*tags],
            meta=meta_of(plan),
        )
    )

    try:
        return bake, await _first_attempt(client, plan, bake)
    except BaseException:
        # Without an attempt nobody could end it, and its name would stay taken.
        with suppress(Exception):
            await _close(client, bake)
        raise


async def _first_attempt(client: Client, plan: Plan, bake: Bake) -> Attempt:
    """Keep the files and the images of a bake, and add its first attempt."""

    async def keep(role: str, filename: str, text: str) -> tuple[str, str]:
        request = ConfigFileRequest(bake_id=bake.id, filename=filename, content=text)
        return role, (await client.bakes.add_file(request)).id

    kept = await client.transport.gather(
        [keep(file.role, file.filename, file.text) for file in plan.files], limit=FILES_AT_ONCE
    )
    for image in plan.images:
        await client.bakes.add_image(
            BakeImageRequest(
                bake_id=bake.id,
                ref=image.ref,
                yaml_defs=[*image.yaml_defs],
                context_on_storage=str(image.context),
                dockerfile_rel=image.dockerfile_rel,
            )
        )
    ids = dict(kept)
    actions = {role: file_id for role, file_id in kept if role not in (_FLOW, _PROJECT)}
    configs = ConfigsMeta(
        workspace=str(plan.workflow.ground.facts.workspace),
        flow_config_id=ids[_FLOW],
        project_config_id=ids.get(_PROJECT),
        action_config_ids=actions,
    )
    return await client.bakes.create_attempt(
        AttemptRequest(bake_id=bake.id, number=1, result=TaskStatus.PENDING, configs_meta=configs)
    )


async def _close(client: Client, bake: Bake) -> None:
    """Give a bake whose submission failed an attempt that is over."""
    attempt = await client.bakes.attempt(bake.id)
    request = AttemptRequest(
        bake_id=bake.id,
        number=1,
        result=TaskStatus.CANCELLED,
        configs_meta=ConfigsMeta(workspace="", flow_config_id=""),
        message="Its submission was interrupted.",
    )
    if attempt is None:
        await client.bakes.create_attempt(request)
    else:
        await client.bakes.replace_attempt(request)


async def restart(client: Client, bake: Bake, attempt_number: int, from_failed: bool) -> Attempt:
    """Add an attempt of the same files and parameters; nothing runs yet.

    With ``from_failed`` it keeps what succeeded in the attempt of that number (-1: the last), as
    far as all that it needs was kept: it is there with all of that, or not at all. Raises Conflict
    where the bake goes on, has been begun too often, somebody else was quicker, or a local action
    of somebody else's would run here; NothingLeft.
    """
    chosen = await client.bakes.attempt(bake.id, attempt_number)
    last = await client.bakes.attempt(bake.id)
    name = bake.name or bake.id
    if chosen is None or last is None:
        raise NotFound(f"Bake {name} has no attempt #{attempt_number}.")
    for attempt in (chosen, last):
        if not attempt.result.is_finished:
            raise Conflict(
                f"Attempt #{attempt.number} of {name} is {attempt.result.value}: wait for its end,"
                f" or stop it with `neuro-flow cancel {name}`."
            )
    if from_failed and chosen.result is TaskStatus.SUCCEEDED:
        raise NothingLeft(
            f"Attempt #{chosen.number} of {name} succeeded: nothing is left to run. To run"
            f" everything again: `neuro-flow restart --no-from-failed {name}`."
        )
    if last.number >= MAX_ATTEMPTS:
        raise Conflict(
            f"{name} has {last.number} attempts, the most that a bake can have: start a new bake."
        )
    kept = None
    tasks: list[Task] = []
    if from_failed:
        graphs = (await client.bakes.get(bake.id)).graphs
        tasks = await client.bakes.tasks(chosen.id)
        kept = kept_of(chosen.number, graphs, tasks)
    if is_foreign(client, bake):
        from neuro.flow.batch.local import refuse_local_actions

        await refuse_local_actions(client, bake, chosen, _as_kept(tasks, kept))
    number = last.number + 1
    try:
        return await client.bakes.create_attempt(
            AttemptRequest(
                bake_id=bake.id,
                number=number,
                result=TaskStatus.PENDING,
                configs_meta=chosen.configs_meta,
                kept=kept,
            )
        )
    except Conflict:
        if await client.bakes.attempt(bake.id, number) is None:
            raise
        raise Conflict(
            f"Attempt #{number} of {name} was started by somebody else a moment ago."
        ) from None


def kept_of(attempt: int, graphs: Graphs, tasks: Iterable[Task]) -> Kept:
    """The tasks that a restart keeps of the attempt of a number, given its graphs and tasks.

    A task is kept if it succeeded (or was cached) and so is all that it needs, and all that the
    calls around it need. A call that is not kept itself goes on with what is kept in it. The main
    part of a stateful action is not kept where its other part has run: what it set up is gone.
    """
    keeper = _Keeper(graphs, {task.yaml_id: task for task in tasks})
    keeper.keep()
    return Kept(attempt=attempt, tasks=keeper.kept, calls=keeper.calls)


def _as_kept(tasks: Iterable[Task], kept: Kept | None) -> list[Task]:
    """The records that an attempt which keeps this has at its beginning."""
    if kept is None:
        return []
    whole, calls = set(kept.tasks), set(kept.calls)
    records = [task for task in tasks if task.yaml_id in whole]
    return records + [
        msgspec.structs.replace(
            task,
            raw_id=None,
            statuses=[msgspec.structs.replace(task.statuses[0], status=TaskStatus.PENDING)],
        )
        for task in tasks
        if task.yaml_id in calls and task.statuses
    ]


class _Keeper:
    def __init__(self, graphs: Graphs, tasks: Mapping[str, Task]) -> None:
        self._graphs = graphs
        self._tasks = tasks
        self.kept: list[str] = []
        self.calls: list[str] = []

    def keep(self) -> None:
        waiting = [""]
        while waiting:
            calls = self._graph(waiting.pop())
            self.calls += calls
            waiting += calls

    def _graph(self, prefix: str) -> list[str]:
        """Keep what can be kept of one graph; return the calls of it that go on."""
        graph = self._graphs.get(prefix, {})
        kept: set[str] = set()
        calls: list[str] = []
        for node in in_order(graph):
            if not all(need in kept for need in graph[node]):
                continue
            task = self._tasks.get(node)
            if task is None:
                continue
            if task.status in _DONE and not self._is_gone(prefix, node):
                kept.add(node)
                self.kept.append(node)
                self._all_below(node)
            elif node in self._graphs and task.statuses and task.status is not TaskStatus.SKIPPED:
                calls.append(node)
        return calls

    def _is_gone(self, prefix: str, node: str) -> bool:
        """Whether a node is part of a stateful action whose other part has run."""
        # Ids of rows may have dots of their own: what is in front is known from the graph.
        before = f"{prefix}." if prefix else ""
        own, graph = node.removeprefix(before), self._graphs[prefix]
        if own.startswith("post-") and before + own.removeprefix("post-") in graph:
            return True
        post = self._tasks.get(f"{before}post-{own}")
        return f"{before}post-{own}" in graph and post is not None and post.raw_id is not None

    def _all_below(self, call: str) -> None:
        """The graph of a call that a restart keeps, to be shown."""
        waiting = [call]
        while waiting:
            for node in self._graphs.get(waiting.pop(), {}):
                task = self._tasks.get(node)
                if task is not None and task.status.is_finished:
                    self.kept.append(node)
                    waiting.append(node)
