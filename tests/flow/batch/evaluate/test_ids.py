"""Full ids, joined by dots, where rows are named by values with dots: each is of one node."""

from __future__ import annotations

import pytest

from neuro.flow.problems import FlowError
from tests.flow.batch.bake_machine import Behaviour, run_batch
from tests.flow.batch.evaluate.batches import gave

CALLS = """\
tasks:
- id: c
  action: ws:act
  strategy: {matrix: {k: [%s]}}
"""
X = "kind: batch\ntasks: [{id: x, image: i}]\n"
STATEFUL = "kind: stateful\nmain: {image: i}\npost: {image: i}\n"

ALIKE = {
    "a row and a call": ("'1', 1.x", "c-k-1.x", "c-k-1"),
    "a row after others that begin like it": ("v, v.1, v.1.x", "c-k-v.1.x", "c-k-v.1"),
    "whatever is in the call": ("data, data.csv", "c-k-data.csv", "c-k-data"),
    "what runs in the end": ("a, a.post-s", "c-k-a.post-s", "c-k-a"),
}


@pytest.mark.parametrize(("values", "row", "call"), ALIKE.values(), ids=ALIKE)
def test_a_row_that_looks_like_a_task_in_a_call_is_an_error(place, values, row, call):
    with pytest.raises(FlowError) as caught:
        place.plan(CALLS % values, act=X)
    messages = [problem.message for problem in caught.value.problems]
    assert f"The row '{row}' could not be told from a task in '{call}', which is a call" in messages
    (problem, *_) = caught.value.problems
    assert (problem.at.source.name[-5:], problem.at.line, problem.at.column) == ("b.yml", 3, 7)
    assert "id: c_${{ matrix.ORDINAL }}" in problem.hint


FINE = {
    "numbers": ("c", "0, 0.1, 1, 1.5"),
    "no call is named so": ("c", "a.x, a.y"),
    "no calls": ("x", "a, a.x"),
}


@pytest.mark.parametrize(("what", "values"), FINE.values(), ids=FINE)
def test_dots_alone_are_fine(place, what, values):
    text = CALLS if what == "c" else CALLS.replace("action: ws:act", "image: i")
    plan = place.plan(text % values, act=X)
    assert len(plan.nodes) == len(values.split(",")) * (2 if what == "c" else 1)


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


def test_rows_that_outputs_decide_fail_where_they_look_so(place):
    listed = {"list": Behaviour(outputs={"names": '["1", "1.x"]'})}
    machine = run_batch(DYNAMIC, listed, actions={"act": X})
    assert machine.statuses() == {"c": "failed", "end": "succeeded", "list": "succeeded"}
    message = machine.records["c"].message
    assert message.startswith("The row 'c-k-1.x' could not be told from a task in 'c-k-1'")
    assert "id: c_${{ matrix.ORDINAL }}" in message
    assert machine.order == ["list", "end"]


def test_rows_that_outputs_decide_may_have_dots(place):
    listed = {"list": Behaviour(outputs={"names": '["1", "1.5"]'})}
    machine = run_batch(DYNAMIC, listed, actions={"act": X})
    calls = {"c-k-1", "c-k-1.x", "c-k-1.5", "c-k-1.5.x"}
    assert machine.statuses().keys() == {"list", "end", *calls}


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
