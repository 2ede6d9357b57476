"""Full ids, joined by dots, where rows are named by values with dots: each is of one node."""

from __future__ import annotations

import pytest

from neuro.flow.syntax.problems import FlowError
from tests.flow.batch.bake_machine import Behaviour, run_batch
from tests.flow.batch.evaluate.batches import gave

CALLS = """\
tasks:
- id: c
  action: ws:act
  strategy: {matrix: {k: [%s]}}
"""
X = "kind: batch\ntasks: [{id: x, image: i}]\n"
ROWS = """\
kind: batch
tasks:
- {id: x, image: i, strategy: {matrix: {k: [b, c.y]}}}
- {id: y, image: i}
"""
STATEFUL = "kind: stateful\nmain: {image: i}\npost: {image: i}\n"

SHARED = {
    "a row and a task in a call": ("'1', 1.x", X, "c-k-1.x"),
    "a row after others that begin like it": ("v, v.w, v.w.x", X, "c-k-v.w.x"),
    "a row and a row in a call": ("a, a.x-k-b", ROWS, "c-k-a.x-k-b"),
    "a row in a call and a task in another": ("a, a.x-k-c", ROWS, "c-k-a.x-k-c.y"),
    "what runs in the end in a call": (
        "a, a.post-s",
        "kind: batch\ntasks: [{id: s, action: 'ws:stateful'}]\n",
        "c-k-a.post-s",
    ),
    "a task without an id": ("a, a.task-1", "kind: batch\ntasks: [{image: i}]\n", "c-k-a.task-1"),
    "a task in a call in a call": (
        "a, a.in.x",
        "kind: batch\ntasks: [{id: in, action: 'ws:inner'}]\n",
        "c-k-a.in.x",
    ),
}


@pytest.mark.parametrize(("values", "act", "shared"), SHARED.values(), ids=SHARED)
def test_a_full_id_of_two_nodes_is_an_error(place, values, act, shared):
    with pytest.raises(FlowError) as caught:
        place.plan(CALLS % values, act=act, stateful=STATEFUL, inner=X)
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"The id '{shared}' is there twice: of a task in the call 'c")
    assert (problem.at.source.name[-5:], problem.at.line, problem.at.column) == ("b.yml", 3, 7)
    assert "id: c_${{ matrix.ORDINAL }}" in problem.hint


FINE = {
    "numbers": ("0, 0.1, 1, 1.5", X),
    "a call has no such task": ("data, data.csv, v1, v1.beta", X),
    "a task in a call has that beginning": ("a, a.xy", X),
    "a call has such a task in another": ("a, a.b.x", ROWS),
}


@pytest.mark.parametrize(("values", "act"), FINE.values(), ids=FINE)
def test_dots_alone_are_fine(place, values, act):
    plan = place.plan(CALLS % values, act=act)
    inner = 1 if act == X else 3
    assert len(plan.nodes) == len(values.split(",")) * (1 + inner)


def test_the_hint_helps(place):
    text = CALLS.replace("id: c", "id: c_${{ matrix.ORDINAL }}")
    plan = place.plan(text % "'1', 1.x", act=X)
    assert sorted(plan.nodes) == ["c_0", "c_0.x", "c_1", "c_1.x"]


def test_a_row_and_what_runs_in_the_end_have_different_ids(place):
    assert place.problems(
        """
        tasks:
        - {id: main, action: 'ws:stateful', strategy: {matrix: {k: [1]}}}
        - {id: post, image: i, strategy: {matrix: {main: [k-1]}}}
        """,
        stateful=STATEFUL,
    ) == ["The id 'post-main-k-1' is there twice"]


DYNAMIC = """\
kind: batch
defaults: {fail_fast: false}
tasks:
- {id: list, image: i}
- id: c
  action: ws:act
  needs: [list]
  strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
- {id: end, image: i, needs: [list]}
"""


def test_rows_that_outputs_decide_fail_where_they_share_a_full_id(place):
    listed = {"list": Behaviour(outputs={"names": '["1", "1.x"]'})}
    machine = run_batch(DYNAMIC, listed, actions={"act": X})
    assert machine.statuses() == {"c": "failed", "end": "succeeded", "list": "succeeded"}
    message = machine.records["c"].message
    assert message.startswith("The id 'c-k-1.x' is there twice")
    assert "id: c_${{ matrix.ORDINAL }}" in message
    assert machine.order == ["list", "end"]


def test_rows_that_outputs_decide_may_have_dots(place):
    listed = {"list": Behaviour(outputs={"names": '["1", "1.5", "1.y"]'})}
    machine = run_batch(DYNAMIC, listed, actions={"act": X})
    assert machine.statuses().keys() == {
        "list", "end", "c-k-1", "c-k-1.x", "c-k-1.5", "c-k-1.5.x", "c-k-1.y", "c-k-1.y.x",
    }  # fmt: skip


LATE_INSIDE = """\
kind: batch
tasks:
- {id: list, image: i}
- id: x
  image: i
  needs: [list]
  strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
"""


@pytest.mark.parametrize("seed", range(5))
def test_rows_inside_a_call_fail_where_they_share_a_full_id(place, seed):
    text = f"kind: batch\ndefaults: {{fail_fast: false}}\n{CALLS % 'a, a.x-k-b'}"
    listed = {
        "c-k-a.list": Behaviour(outputs={"names": '["b"]'}),
        "c-k-a.x-k-b.list": Behaviour(outputs={"names": '["c"]'}),
    }
    machine = run_batch(text, listed, actions={"act": LATE_INSIDE}, seed=seed)
    assert machine.statuses() == {
        "c-k-a": "failed",
        "c-k-a.list": "succeeded",
        "c-k-a.x": "failed",
        "c-k-a.x-k-b": "succeeded",
        "c-k-a.x-k-b.list": "succeeded",
        "c-k-a.x-k-b.x-k-c": "succeeded",
    }
    assert machine.records["c-k-a.x"].message.startswith("The id 'c-k-a.x-k-b' is there twice")


def test_a_call_whose_inputs_give_its_rows_a_shared_full_id_does_not_open(place):
    text = """
    tasks:
    - {id: list, image: i}
    - id: c
      action: ws:act
      needs: [list]
      args: {names: "${{ needs.list.outputs.names }}"}
      strategy: {matrix: {k: [a, a.x-k-b]}}
    """
    act = """
    kind: batch
    inputs: {names: {}}
    tasks:
    - {id: x, image: i, strategy: {matrix: {k: "${{ from_json(inputs.names) }}"}}}
    """
    batch = place.batch(text, act=act)
    assert {*batch.open("c-k-a", list=gave(names='["c"]')).nodes} == {("c-k-a", "x-k-c")}
    with pytest.raises(FlowError, match=r"The id 'c-k-a.x-k-b' is there twice"):
        batch.open("c-k-a", list=gave(names='["b"]'))


TWO_LISTS = """
tasks:
- {id: list, image: i}
- &rows
  id: ${{ matrix.k }}
  image: i
  needs: [list]
  strategy: {matrix: {k: "${{ from_json(needs.list.outputs.names) }}"}}
- *rows
"""


def test_rows_of_two_matrices_have_different_ids(place):
    workflow = place.batch(TWO_LISTS).workflow
    outcomes = {("list",): gave(names='["one", "two"]')}
    first, second = (workflow.root().nodes[name,] for name in ("task-2", "task-3"))
    assert [row.id for row in workflow.expand(first, outcomes)] == [("one",), ("two",)]
    with pytest.raises(FlowError, match="The id 'one' is there twice"):
        workflow.expand(second, outcomes)
    assert len(workflow.expand(first, outcomes)) == 2
