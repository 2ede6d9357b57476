"""How the tasks of a bake and its attempt end."""

from __future__ import annotations

import pytest

from neuro.flow.batch.instructions import Submit
from tests.flow.batch.bake_machine import Behaviour, Machine, run_batch, workflow_of

FAILS = Behaviour((1,))
CANCELLED = Behaviour(cancelled=True)
HANGS = Behaviour(hangs=True)

RUN, SKIP = "succeeded", "skipped"
CONDITIONS = {
    "default": None,
    "failure()": "${{ failure() }}",
    "not failure()": "${{ not failure() }}",
    "always()": "${{ always() }}",
    "true": "${{ True }}",
}
# What becomes of a task whose need has ended so, by its condition.
TABLE = {
    "succeeded": (RUN, SKIP, RUN, RUN, RUN),
    "cached": (RUN, SKIP, RUN, RUN, RUN),
    "failed, others go on": (SKIP, RUN, SKIP, RUN, RUN),
    "failed": (SKIP, SKIP, SKIP, RUN, SKIP),
    "cancelled": (SKIP, SKIP, SKIP, RUN, SKIP),
    "skipped": (SKIP, SKIP, RUN, RUN, RUN),
}
CASES = [
    (ended, condition, expected)
    for ended, row in TABLE.items()
    for condition, expected in zip(CONDITIONS, row, strict=True)
]


def task(id: str, *lines: str) -> str:
    return "\n".join([f"- id: {id}", "  image: ubuntu", *(f"  {line}" for line in lines), ""])


def batch(*tasks: str, defaults: str = "") -> str:
    return f"kind: batch\n{defaults}tasks:\n{''.join(tasks)}"


@pytest.mark.parametrize(("ended", "condition", "expected"), CASES)
def test_conditions(ended: str, condition: str, expected: str) -> None:
    need = task("d", *(["enable: false"] if ended == "skipped" else []))
    enable = CONDITIONS[condition]
    text = batch(
        need,
        task("t", "needs: [d]", *([f"enable: {enable}"] if enable else [])),
        defaults="defaults:\n  fail_fast: false\n" if "go on" in ended else "",
    )
    behaviours = {
        "d": Behaviour((int(ended.startswith("failed")),), cancelled=ended == "cancelled")
    }
    if ended == "cached":
        first = Machine(lambda: workflow_of(batch(task("d"))))
        first.start()
        first.run()
    machine = Machine(lambda: workflow_of(text), behaviours)
    if ended == "cached":
        machine.cache = first.cache
    machine.start()
    machine.run()
    assert machine.statuses() == {"d": ended.split(",")[0], "t": expected}


_FIVE = (
    task("b", "needs: [a]"),
    task("c", "needs: [b]", "enable: ${{ failure() }}"),
    task("d", "needs: [a]", "enable: ${{ always() }}"),
    task("e", "needs: [a]", "enable: ${{ failure() }}"),
    task("f", "needs: [a]", "enable: ${{ True }}"),
)


def test_a_failure_stops_all_but_always() -> None:
    machine = run_batch(batch(task("a"), *_FIVE), {"a": FAILS})
    assert machine.statuses() == {
        "a": "failed",
        **dict.fromkeys("bcef", "skipped"),
        "d": "succeeded",
    }
    assert machine.finish is not None
    assert machine.finish.result.value == "failed"
    assert machine.finish.message == "Task a failed: exit code 1"


def test_a_failure_that_stops_nothing() -> None:
    asks = task("g", "needs: [b]", "enable: ${{ needs.b.result == 'skipped' }}")
    text = batch(task("a"), *_FIVE, asks, defaults="defaults:\n  fail_fast: false\n")
    machine = run_batch(text, {"a": FAILS})
    assert machine.statuses() == {
        "a": "failed",
        **dict.fromkeys("bc", "skipped"),
        **dict.fromkeys("defg", "succeeded"),
    }
    assert machine.finish is not None
    assert machine.finish.result.value == "failed"


def test_a_skipped_need_is_no_failure() -> None:
    text = batch(task("a", "enable: false"), task("b"), task("c", "enable: ${{ not failure() }}"))
    machine = run_batch(text)
    assert machine.statuses() == {"a": "skipped", "b": "skipped", "c": "succeeded"}
    assert machine.finish is not None
    assert machine.finish.result.value == "succeeded"


def test_a_skipped_task_counts_as_running() -> None:
    machine = run_batch(batch(task("a", "enable: false"), task("b", "needs:", "  a: running")))
    assert machine.statuses() == {"a": "skipped", "b": "succeeded"}


def test_need_of_a_running_task() -> None:
    text = batch(task("a"), task("b", "needs:", "  a: running"))
    machine = Machine(lambda: workflow_of(text), {"a": HANGS})
    machine.start()
    while machine.step():
        pass
    assert machine.statuses() == {"a": "running", "b": "succeeded"}


@pytest.mark.parametrize("seed", range(5))
def test_a_failing_row_ends_the_others(seed: int) -> None:
    text = batch(
        task("r_${{ matrix.k }}", "strategy:", "  matrix:", "    k: [x, y, z]"),
        task("after", "needs: [r_x, r_y, r_z]"),
    )
    machine = run_batch(text, {"r_x": HANGS, "r_y": FAILS, "r_z": HANGS}, seed=seed)
    statuses = machine.statuses()
    assert statuses["r_y"] == "failed"
    # A row that had not been submitted yet never is.
    assert {statuses["r_x"], statuses["r_z"]} <= {"cancelled", "skipped"}
    assert statuses["after"] == "skipped"
    assert machine.finish is not None
    assert machine.finish.result.value == "failed"


def test_a_job_killed_from_outside() -> None:
    machine = run_batch(batch(task("a"), task("b")), {"a": CANCELLED})
    assert machine.statuses() == {"a": "cancelled", "b": "skipped"}
    assert machine.finish is not None
    assert machine.finish.result.value == "cancelled"
    # Nobody has cancelled the bake: who comes back to it wants to know why.
    assert machine.records["a"].message == "Its job was killed."
    assert machine.finish.message == "Task a was cancelled: Its job was killed."


def test_cancel_kills_what_runs_but_always() -> None:
    text = batch(
        task("a", "needs: []"),
        task("b", "needs: []", "enable: ${{ always() }}"),
        task("c", "needs: [a, b]"),
        task("d", "needs: [a, b]", "enable: ${{ always() }}"),
    )
    machine = Machine(lambda: workflow_of(text), {"a": HANGS})
    machine.start()
    while machine.statuses().get("a") != "running":
        machine.step()
    machine.state.cancel(machine.now, "enough")
    machine.gather()
    machine.run()
    assert machine.statuses() == {
        "a": "cancelled",
        "b": "succeeded",
        "c": "skipped",
        "d": "succeeded",
    }
    assert machine.finish is not None
    assert (machine.finish.result.value, machine.finish.message) == ("cancelled", "enough")


def test_tolerated_failure() -> None:
    text = batch(
        task("a", "continue_on_error: true"),
        task("b"),
        task("c", "needs: [a]", "enable: ${{ failure() }}"),
    )
    machine = run_batch(text, {"a": FAILS})
    assert machine.statuses() == {"a": "failed", "b": "succeeded", "c": "skipped"}
    assert machine.records["a"].message == "exit code 1; it may fail"
    assert machine.finish is not None
    assert machine.finish.result.value == "succeeded"


def test_an_expression_that_fails_fails_its_task() -> None:
    text = batch(
        task("a", "env:", "  X: ${{ from_json('{') }}"),
        task("b", "needs: [a]", "enable: ${{ always() }}"),
        task("c", "needs: []"),
        defaults="defaults:\n  fail_fast: false\n",
    )
    machine = run_batch(text)
    assert machine.statuses() == {"a": "failed", "b": "succeeded", "c": "succeeded"}
    assert "from_json" in (machine.records["a"].message or "")
    assert machine.records["a"].raw_id is None
    assert machine.finish is not None
    assert machine.finish.result.value == "failed"


def test_outputs_reach_the_next_task() -> None:
    text = batch(task("a"), task("b", "cmd: echo ${{ needs.a.outputs.x }}"))
    machine = Machine(lambda: workflow_of(text), {"a": Behaviour(outputs={"x": "17"})})
    machine.start()
    commands: list[str | None] = []
    submit = machine.submit
    machine.submit = lambda action: (commands.append(action.task.cmd), submit(action))[1]  # type: ignore[method-assign]
    machine.run()
    assert commands == [None, "echo 17"]


def test_max_parallel() -> None:
    rows = task(
        "r_${{ matrix.k }}",
        "strategy:",
        "  max_parallel: 2",
        "  matrix:",
        "    k: [a, b, c, d, e, f]",
    )
    others = "".join(task(f"o{number}", "needs: []") for number in range(3))
    alone = run_batch(batch(rows), eager=True)
    assert alone.most_at_once == 2
    assert len(alone.order) == 6
    # The others are not held up by the rows, nor do they count as rows.
    both = run_batch(batch(rows, others), eager=True)
    assert both.most_at_once == 5


def test_limit_of_the_whole_bake() -> None:
    tasks = "".join(task(f"t{number}", "needs: []") for number in range(9))
    machine = run_batch(batch(tasks, defaults="defaults:\n  max_parallel: 3\n"), eager=True)
    assert machine.most_at_once == 3
    assert len(machine.jobs) == 9


def test_cached_tasks_run_once() -> None:
    text = batch(task("a"), task("b", "cmd: echo ${{ needs.a.outputs.x }}"))
    first = run_batch(text, {"a": Behaviour(outputs={"x": "1"})})
    again = Machine(lambda: workflow_of(text))
    again.cache = first.cache
    again.start()
    again.run()
    assert again.statuses() == {"a": "cached", "b": "cached"}
    assert again.records["a"].raw_id == first.records["a"].raw_id
    assert again.records["a"].outputs == {"x": "1"}
    assert not again.jobs


def test_empty_and_skipped_calls() -> None:
    actions = {
        "none.yml": "kind: batch\ntasks: []\n",
        "one.yml": "kind: batch\noutputs:\n  v:\n    value: ${{ needs.i.outputs.x }}\n"
        "tasks:\n" + task("i"),
    }
    text = batch(
        "- id: closed\n  action: ws:one.yml\n  enable: false\n",
        "- id: nothing\n  needs: []\n  action: ws:none.yml\n",
        "- id: call\n  needs: []\n  action: ws:one.yml\n",
        task("end", "needs: [call, nothing]", "cmd: echo ${{ needs.call.outputs.v }}"),
    )
    machine = run_batch(text, {"call.i": Behaviour(outputs={"x": "5"})}, actions=actions)
    assert machine.statuses() == {
        "call": "succeeded",
        "call.i": "succeeded",
        "end": "succeeded",
        "nothing": "succeeded",
        "closed": "skipped",
    }
    assert machine.records["call"].outputs == {"v": "5"}
    assert machine.history("call") == ["pending", "running", "succeeded"]


def test_failure_inside_a_call() -> None:
    actions = {"one.yml": "kind: batch\ntasks:\n" + task("i") + task("j")}
    text = batch("- id: call\n  action: ws:one.yml\n", task("end"))
    machine = run_batch(text, {"call.i": FAILS}, actions=actions)
    assert machine.statuses() == {
        "call": "failed",
        "call.i": "failed",
        "call.j": "skipped",
        "end": "skipped",
    }
    assert machine.finish is not None
    assert machine.finish.message == "Task call.i failed: exit code 1"


def test_tolerated_call_fails_alone() -> None:
    actions = {"one.yml": "kind: batch\ntasks:\n" + task("i") + task("j")}
    text = batch(
        "- id: call\n  action: ws:one.yml\n  continue_on_error: true\n",
        task("beside", "needs: []"),
        task("end", "needs: [call]"),
    )
    machine = run_batch(text, {"call.i": FAILS}, actions=actions)
    assert machine.statuses() == {
        "beside": "succeeded",
        "call": "failed",
        "call.i": "failed",
        "call.j": "skipped",
        "end": "succeeded",
    }
    assert machine.finish is not None
    assert machine.finish.result.value == "succeeded"


STATEFUL = """
kind: stateful
main:
  image: ubuntu
post:
  image: ubuntu
  cmd: rm ${{ state.path }}
"""


@pytest.mark.parametrize("seed", range(5))
def test_posts_run_last_and_in_reverse(seed: int) -> None:
    text = batch(
        "- id: one\n  action: ws:s.yml\n",
        "- id: two\n  action: ws:s.yml\n",
        task("work"),
    )
    states = {name: Behaviour(state={"path": name}) for name in ("one", "two")}
    machine = run_batch(text, states, actions={"s.yml": STATEFUL}, seed=seed)
    assert machine.order == ["one", "two", "work", "post-two", "post-one"]
    failed = run_batch(text, {**states, "work": FAILS}, actions={"s.yml": STATEFUL}, seed=seed)
    assert failed.order == ["one", "two", "work", "post-two", "post-one"]
    assert failed.statuses()["post-one"] == "succeeded"
    unused = run_batch(text, {"one": FAILS}, actions={"s.yml": STATEFUL}, seed=seed)
    assert unused.statuses()["post-two"] == "skipped"


def test_rows_that_outputs_decide() -> None:
    text = batch(
        task("list"),
        task(
            "train",
            "strategy:",
            "  matrix:",
            "    k: ${{ from_json(needs.list.outputs.names) }}",
        ),
        task("end", "cmd: echo ${{ len(needs.train.rows) }}"),
    )
    listed = Behaviour(outputs={"names": '["x", "y"]'})
    machine = run_batch(text, {"list": listed, "train-k-x": Behaviour(outputs={"o": "1"})})
    assert machine.statuses() == {
        "end": "succeeded",
        "list": "succeeded",
        "train-k-x": "succeeded",
        "train-k-y": "succeeded",
    }
    (redraw,) = machine.redraws
    assert {id[-1]: {need[-1] for need in needs} for id, needs in redraw.graph.items()} == {
        "list": set(),
        "train-k-x": {"list"},
        "train-k-y": {"list"},
        "end": {"train-k-x", "train-k-y"},
    }
    failed = run_batch(text, {"list": listed, "train-k-x": FAILS, "train-k-y": HANGS})
    assert failed.statuses()["end"] == "skipped"
    nothing = run_batch(text, {"list": Behaviour(outputs={"names": "[]"})})
    assert nothing.statuses() == {"end": "succeeded", "list": "succeeded"}
    skipped = run_batch(text, {"list": FAILS})
    assert skipped.statuses() == {"end": "skipped", "list": "failed", "train": "skipped"}


def test_a_job_whose_end_is_told_before_its_submission_is_answered() -> None:
    machine = Machine(lambda: workflow_of(batch(task("a"), task("b"))))
    machine.start()
    machine.act(machine.todo.pop())  # LookUp
    submit = machine.todo.pop()
    assert isinstance(submit, Submit)
    job = machine.submit(submit)
    made = job.state()
    machine.move(job)
    machine.move(job)
    machine.state.submitted(submit.id, submit.number, made, machine.now)
    machine.gather()
    assert machine.run() == "succeeded"
    assert machine.history("a") == ["pending", "running", "succeeded"]
