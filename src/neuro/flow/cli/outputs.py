"""``neuro-flow inspect --outputs``: what tasks gave, beside the values of the matrix they had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from neuro.cli.output import terminal_width
from neuro.cli.render.table import Column
from neuro.flow.cli.thin_table import Layout, Row, firm, thin_table

if TYPE_CHECKING:
    from neuro.domain.bakes import Attempt, Bake, ConfigFile, Task
    from neuro.flow.cli.context import FlowContext
    from neuro.flow.model import FullId, Graph, Node, Outcome, Workflow

# The number of a row, which its id tells already.
_ORDINAL = "ORDINAL"


class Varied(NamedTuple):
    """A row of a matrix: which one's it is, and its values."""

    matrix: tuple[str, int]
    values: Mapping[str, object]


def matrices(
    context: FlowContext, bake: Bake, attempt: Attempt, tasks: Sequence[Task]
) -> dict[str, Varied]:
    """The rows of matrices of the attempt, by their ids.

    They are read from the files that are kept with the bake; where these cannot be read any more,
    there are none.
    """
    from neuro.domain.errors import PlatformError
    from neuro.flow.batch.stored import config_ids, workflow_of
    from neuro.flow.problems import FlowError

    async def read() -> list[ConfigFile]:
        files = [context.client.bakes.file(it) for it in config_ids(attempt.configs_meta)]
        return await context.client.transport.gather(files, limit=4)

    try:
        texts = {file.id: file for file in context.run(read())}
        workflow = workflow_of(bake.owner or context.client.user, bake, attempt, texts)
        return _OutputsWalk(workflow, bake, tasks).found
    except (FlowError, PlatformError) as error:
        context.out.note(f"The values of matrices are not known: {error}")
        return {}


class _OutputsWalk:
    """Goes through the graphs of a bake as far as its outcomes decide them."""

    def __init__(self, workflow: Workflow, bake: Bake, tasks: Sequence[Task]) -> None:
        self.found: dict[str, Varied] = {}
        self._workflow = workflow
        self._bake = bake
        self._tasks = {task.yaml_id: task for task in tasks}
        self._graph(workflow.root())

    def _graph(self, graph: Graph) -> None:
        from neuro.flow.model import NodeKind, join_id
        from neuro.flow.problems import FlowError

        nodes = [*graph.nodes.values()]
        outcomes: dict[FullId, Outcome] = {}
        for node in nodes:
            self._note(node, outcomes)
        for node in [*nodes]:
            if node.kind is NodeKind.GROUP:
                try:
                    rows = self._workflow.expand(node, outcomes)
                except FlowError:
                    continue  # What decides its rows has not succeeded.
                nodes += rows
                for row in rows:
                    self._note(row, outcomes)
        for node in nodes:
            if node.kind is NodeKind.CALL and join_id(node.id) in self._bake.graphs:
                try:
                    inner = self._workflow.open(node, outcomes)
                except FlowError:
                    continue
                self._graph(inner)

    def _note(self, node: Node, outcomes: dict[FullId, Outcome]) -> None:
        from neuro.domain.bakes import TaskStatus
        from neuro.flow.evaluate.batch.ground import Place
        from neuro.flow.model import Outcome, join_id

        name = join_id(node.id)
        if isinstance(node.source, Place) and name in self._tasks:
            matrix = {key: it for key, it in node.source.matrix.items() if key != _ORDINAL}
            if matrix:
                place = (join_id(node.id[:-1]), node.source.element.number)
                self.found[name] = Varied(place, matrix)
        task = self._tasks.get(name)
        if task is not None and task.status.is_finished:
            status = task.status
            result = TaskStatus.SUCCEEDED if status is TaskStatus.CACHED else status
            outcomes[node.id] = Outcome(result, task.outputs or {}, task.state or {})


def told(context: FlowContext, tasks: Sequence[Task], known: Mapping[str, Varied]) -> Iterator[str]:
    """A table for each matrix, and the outputs of all other tasks."""
    from neuro.flow.cli.bake_looks import outputs_lines

    rows: dict[tuple[str, int], list[Task]] = {}
    others = []
    for task in tasks:
        row = known.get(task.yaml_id)
        if row is not None:
            rows.setdefault(row.matrix, []).append(task)
        elif task.outputs:
            others.append(task)
    for group in rows.values():
        yield from _table(context, group, known)
    for task in others:
        yield f"{task.yaml_id}:"
        yield from outputs_lines(task.outputs or {}, "  ")
    if not rows and not others:
        yield "No task has outputs. A task sets one by printing `::set-output name=NAME::VALUE`."


def _table(context: FlowContext, tasks: Sequence[Task], known: Mapping[str, Varied]) -> list[str]:
    from neuro.flow.cli.bake_looks import COLORS

    keys = [*dict.fromkeys(key for task in tasks for key in known[task.yaml_id].values)]
    names = [*dict.fromkeys(name for task in tasks for name in task.outputs or ())]
    columns = [Column("ID"), firm("STATUS"), *(Column(title) for title in (*keys, *names))]
    rows = [
        Row(
            (
                task.yaml_id,
                task.status.value,
                *(str(known[task.yaml_id].values.get(key, "")) for key in keys),
                *((task.outputs or {}).get(name, "") for name in names),
            ),
            COLORS[task.status],
        )
        for task in tasks
    ]
    return thin_table([Layout(columns, rows)], context.paint, terminal_width())
