"""What runs in the end reads in `needs` what it waits for: the check knows what that is."""

from __future__ import annotations

import pytest

from neuro.domain.bakes import TaskStatus
from neuro.flow.batch.plan import make_plan
from neuro.flow.evaluate.batch.ground import Place
from neuro.flow.model import Outcome, Workflow
from neuro.flow.problems import FlowError
from tests.flow.batch.bake_machine import workflow_of

BATCH = "kind: batch\ntasks:\n"
STATEFUL = "kind: stateful\nmain: {image: x}\n"
POST = STATEFUL + "post: {image: x, cmd: \"${{ needs['NAME'].result }}\"}\n"
OTHER = STATEFUL + "post: {image: x}\n"
LIST = "${{ from_json(needs.list.outputs.names) }}"

# The calls of `ws:act` are looked at, besides others of `ws:other`.
GRAPHS = {
    "tasks in a line": "- {id: f, image: x}\n- {id: s, action: 'ws:act'}\n- {id: l, image: x}",
    "a call alone": "- {id: s, action: 'ws:act'}",
    "a call without an id": "- {image: x, needs: []}\n- {action: 'ws:act', needs: []}",
    "tasks beside each other": (
        "- {id: a, image: x}\n- {id: s, action: 'ws:act', needs: [a]}\n- {id: b, image: x}\n"
        "- {id: c, image: x, needs: [a]}"
    ),
    "the first of two calls": (
        "- {id: s, action: 'ws:act'}\n- {id: a, image: x}\n- {id: t, action: 'ws:other'}\n"
        "- {id: b, image: x}"
    ),
    "the last of two calls": (
        "- {id: t, action: 'ws:other'}\n- {id: a, image: x}\n- {id: s, action: 'ws:act'}\n"
        "- {id: b, image: x}"
    ),
    "two calls": "- {id: s, action: 'ws:act'}\n- {id: t, action: 'ws:act', needs: []}",
    "a later call without a post": (
        "- {id: s, action: 'ws:act'}\n- {id: t, action: 'ws:main'}\n- {id: b, image: x}"
    ),
    "a call of a matrix": (
        "- {id: a, image: x}\n- {id: s, action: 'ws:act', strategy: {matrix: {k: [1, 2]}}}\n"
        "- {id: b, image: x, needs: []}"
    ),
    "after a matrix": (
        "- {id: a, image: x, strategy: {matrix: {k: [1, 2]}}}\n"
        "- {id: b, image: x, needs: [a]}\n- {id: c, image: x, strategy: {matrix: {k: [1, 2]}}}\n"
        "- {id: s, action: 'ws:act', needs: []}"
    ),
    "needs of some rows": (
        "- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y]}}}\n"
        "- {id: s, action: 'ws:act', needs: []}\n- {id: b, image: x, needs: [a_x]}"
    ),
    "needs that a matrix decides": (
        "- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [x, y, z]}}}\n"
        "- {id: s, action: 'ws:act', needs: []}\n"
        "- {id: b, image: x, needs: ['a_${{ matrix.k }}'], strategy: {matrix: {k: [x, y]}}}"
    ),
    "what others wait to run": (
        "- {id: a, image: x}\n- {id: s, action: 'ws:act', needs: [a]}\n"
        "- {id: b, image: x, needs: {s: running}}"
    ),
    "rows that outputs decide": (
        "- {id: list, image: x}\n"
        f'- {{id: each, image: x, strategy: {{matrix: {{k: "{LIST}"}}}}}}\n'
        "- {id: s, action: 'ws:act', needs: []}"
    ),
    "rows without an id that outputs decide": (
        "- {id: list, image: x}\n"
        f'- {{image: x, strategy: {{matrix: {{k: "{LIST}"}}}}}}\n'
        "- {id: s, action: 'ws:act', needs: []}"
    ),
    "another call of rows that outputs decide": (
        "- {id: list, image: x}\n- {id: s, action: 'ws:act', needs: []}\n"
        f"- {{id: t, action: 'ws:other', needs: [list], strategy: {{matrix: {{k: \"{LIST}\"}}}}}}"
    ),
}


CALLS = ("action", "module")


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        *((case, "batch") for case in GRAPHS),
        *((case, kind) for case in ("tasks in a line", "two calls") for kind in CALLS),
    ],
)
def test_a_post_reads_what_it_waits_for(place, case, kind):
    files = {"other": OTHER, "main": STATEFUL}
    text = BATCH + GRAPHS[case]
    if kind != "batch":
        files["inner"] = text
        text = f"{BATCH}- {{id: call, {kind}: 'ws:inner'}}\n"
    place.write(".neuro/b.yml", text)
    for name, content in files.items():
        place.write(f"{name}.yml", content)
    names, seen = names_in(workflow_of(text, {**files, "act": POST}))
    refused = {}
    for name in {*names, "nope"}:
        place.write("act.yml", POST.replace("NAME", name))
        if problems := place.check():
            refused[name] = problems
    assert refused.keys() == {*names, "nope"} - seen
    for name, problems in refused.items():
        assert [problem.message for problem in problems] == [f"No attribute '{name}' in 'needs'"]
        assert (problems[0].at.source.name[-7:], problems[0].at.line) == ("act.yml", 3)
        assert problems[0].hint


def names_in(workflow: Workflow) -> tuple[set[str], set[str]]:
    """All ids of a graph, and those that the posts of every call of `ws:act` can read."""
    graph = workflow.root()
    if ("call",) in graph.nodes:
        graph = workflow.open(graph.nodes["call",], {})
    names = {node.id[-1] for node in graph.nodes.values()}
    names |= {node.group[-1] for node in graph.nodes.values() if node.group is not None}
    seen: dict[int, set[str]] = {}
    for node in graph.nodes.values():
        place = node.source
        assert isinstance(place, Place)
        if place.is_post and place.element.task.action.constant == "ws:act":
            # Rows of a matrix read the same file: what one of them sees is not refused.
            seen.setdefault(place.element.number, set()).update(place.targets)
    return names, set.intersection(*seen.values())


RIGHT = {
    "rows whose ids outputs decide": (
        f"- {{id: list, image: x}}\n- {{action: 'ws:act', strategy: {{matrix: {{k: \"{LIST}\"}}}}}}"
    ),
    "beside ids that parameters decide": (
        "- {image: x, strategy: {matrix: {k: ['${{ params.p }}']}}, needs: []}\n"
        "- {id: s, action: 'ws:act', needs: []}\nparams: {p: ~}"
    ),
    "outputs of a call read how its posts ended": (
        "- {id: s, action: 'ws:other'}\noutputs: {o: {value: \"${{ needs['post-s'].result }}\"}}"
    ),
}


def test_the_row_of_a_post_may_have_any_name_where_outputs_decide(place):
    """Check and plan agree; where the rows are known, that name has to be there."""
    rows = f'{{id: s, action: "ws:act", needs: [list], strategy: {{matrix: {{k: "{LIST}"}}}}}}'
    place.write(".neuro/b.yml", f"{BATCH}- {{id: list, image: x}}\n- {rows}\n")
    post = "post: {image: x, cmd: \"${{ needs['s-k-one'].result }} ${{ success('s-k-one') }}\"}\n"
    place.write("act.yml", STATEFUL + post)
    assert place.check() == []
    workflow = make_plan(place.workspace, "b", {}, place.environment).workflow
    root = workflow.root().nodes
    outcomes = {("list",): Outcome(TaskStatus.SUCCEEDED, {"names": '["one", "two"]'})}
    mains = workflow.expand(root["s",], outcomes)
    outcomes |= {main.id: Outcome(TaskStatus.SUCCEEDED) for main in mains}
    one, two = workflow.expand(root["post-s",], outcomes)
    assert workflow.task(one, outcomes, {}).cmd == "succeeded True"
    with pytest.raises(FlowError, match="No item 's-k-one'"):
        workflow.task(two, outcomes, {})


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right(place, case):
    place.write("act.yml", POST.replace("NAME", "task-2-one"))
    place.write("other.yml", OTHER)
    if "outputs:" in RIGHT[case]:
        place.write("inner.yml", BATCH + RIGHT[case])
        place.write(".neuro/b.yml", f"{BATCH}- {{action: 'ws:inner'}}\n")
    else:
        place.write(".neuro/b.yml", BATCH + RIGHT[case])
    assert [problem.render() for problem in place.check()] == []


def test_a_condition_of_a_post(place):
    post_if = "post_if: ${{ success('NAME') }}\n"
    place.write(".neuro/b.yml", BATCH + GRAPHS["tasks in a line"])
    place.write("act.yml", OTHER + post_if.replace("NAME", "s"))
    assert place.check() == []
    place.write("act.yml", OTHER + post_if.replace("NAME", "f"))
    (problem,) = place.check()
    assert problem.message == "success() got an argument that is not a dependency: 'f'"
    assert problem.hint == "A `post` sees its main and what runs last: l, s."
