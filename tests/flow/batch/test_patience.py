"""Tries, time limits, and an executor that dies in the middle."""

from __future__ import annotations

import random
import sys
from datetime import timedelta
from types import FrameType

import pytest

from neuro.flow.model import NodeKind, join_id
from tests.flow.batch.bake_machine import BEGIN, Behaviour, Machine, run_batch, workflow_of
from tests.flow.batch.test_outcomes import FAILS, HANGS, batch, task

THREE = ("retry:", "  attempts: 3", "  delay: 10s", "  backoff: 2")


def test_a_task_is_tried_again() -> None:
    machine = run_batch(batch(task("a", *THREE)), {"a": Behaviour((1, 1, 0))})
    assert machine.statuses() == {"a": "succeeded"}
    assert machine.history("a") == ["pending", "running"] * 3 + ["succeeded"]
    assert [job.key.rpartition("/")[2] for job in machine.jobs.values()] == ["1", "2", "3"]
    one, two, three = machine.jobs.values()
    assert one.finished_at is not None
    assert two.finished_at is not None
    assert two.created_at - one.finished_at == timedelta(seconds=10)
    assert three.created_at - two.finished_at == timedelta(seconds=20)
    assert machine.records["a"].raw_id == three.id


def test_the_last_try_decides() -> None:
    machine = run_batch(batch(task("a", "retry: 2")), {"a": FAILS})
    assert machine.statuses() == {"a": "failed"}
    assert len(machine.jobs) == 2


def test_a_cancelled_job_is_not_tried_again() -> None:
    machine = run_batch(batch(task("a", *THREE)), {"a": Behaviour(cancelled=True)})
    assert machine.statuses() == {"a": "cancelled"}
    assert len(machine.jobs) == 1


def test_no_try_in_a_bake_that_is_cancelled() -> None:
    machine = Machine(lambda: workflow_of(batch(task("a", *THREE))), {"a": FAILS})
    machine.start()
    while machine.state.next_wake is None:
        machine.step()
    machine.state.cancel(machine.now)
    machine.gather()
    machine.run()
    assert machine.statuses() == {"a": "failed"}
    assert len(machine.jobs) == 1


def test_timeout() -> None:
    machine = run_batch(batch(task("a", "timeout: 90s")), {"a": HANGS})
    assert machine.statuses() == {"a": "failed"}
    assert machine.records["a"].message == "timed out after 1m30s"
    (job,) = machine.jobs.values()
    assert job.started_at is not None
    assert job.finished_at == job.started_at + timedelta(seconds=90)
    assert machine.finish is not None
    assert machine.finish.result.value == "failed"


def test_a_task_that_timed_out_is_tried_again() -> None:
    machine = run_batch(batch(task("a", "timeout: 5s", "retry: 2")), {"a": HANGS})
    assert len(machine.jobs) == 2
    assert machine.records["a"].message == "timed out after 5s (try 2)"


def test_a_pause_longer_than_the_timeout() -> None:
    text = batch(task("a", "timeout: 30s", "retry:", "  attempts: 2", "  delay: 1h"))
    machine = run_batch(text, {"a": Behaviour((1, 0))})
    one, two = machine.jobs.values()
    assert one.finished_at is not None
    assert two.created_at - one.finished_at == timedelta(hours=1)


def test_life_span_of_the_bake() -> None:
    text = batch(task("a"), task("b", "enable: ${{ always() }}"))
    machine = Machine(lambda: workflow_of(text), {"a": HANGS}, life_span=timedelta(hours=1))
    machine.start()
    machine.run()
    assert machine.now == BEGIN + timedelta(hours=1) + (machine.now - BEGIN) % timedelta(hours=1)
    assert machine.statuses() == {"a": "cancelled", "b": "succeeded"}
    assert machine.finish is not None
    assert machine.finish.result.value == "cancelled"
    assert machine.finish.message == "The bake's life span of 1h has ended."


def random_batch(chance: random.Random, *, fail_fast: bool) -> tuple[str, dict[str, Behaviour]]:
    """A graph of tasks, calls and matrices, and what becomes of them."""
    tasks: list[str] = []
    names: list[str] = []
    behaviours: dict[str, Behaviour] = {}
    for number in range(chance.randint(1, 12)):
        name = f"t{number}"
        needs = chance.sample(names, chance.randint(0, min(3, len(names))))
        levels = [
            f"  {need}: {'running' if chance.random() < 0.2 else 'completed'}" for need in needs
        ]
        lines = ["needs:", *levels] if needs else ["needs: []"]
        enable = chance.choice(
            [None, None, "${{ always() }}", "${{ failure() }}", "${{ not failure() }}", "false"]
        )
        if enable:
            lines.append(f"enable: {enable}")
        if chance.random() < 0.15:
            lines.append("continue_on_error: true")
        kind = chance.random()
        if kind < 0.15:
            lines = [f"- id: {name}", "  action: ws:inner.yml", *(f"  {line}" for line in lines)]
            tasks.append("\n".join([*lines, ""]))
            outcomes = [f"{name}.i", f"{name}.j"]
        else:
            if kind < 0.3:
                lines += ["strategy:", "  matrix:", "    k: [x, y]"]
                outcomes = [f"{name}-k-x", f"{name}-k-y"]
            else:
                outcomes = [name]
            if chance.random() < 0.3:
                lines += ["retry:", "  attempts: 3", "  delay: 5s"]
            if chance.random() < 0.2:
                lines.append("timeout: 60s")
            tasks.append(task(name, *lines))
        for outcome in outcomes:
            codes = tuple(chance.choice([0, 0, 0, 1]) for _ in range(3))
            behaviours[outcome] = Behaviour(
                codes,
                outputs={"x": outcome},
                hangs="timeout: 60s" in lines and chance.random() < 0.5,
                cancelled=chance.random() < 0.05,
            )
        names.append(name)
    defaults = f"defaults:\n  max_parallel: 3\n  fail_fast: {str(fail_fast).lower()}\n"
    return batch(*tasks, defaults=defaults), behaviours


INNER = {"inner.yml": "kind: batch\ntasks:\n" + task("i") + task("j")}


@pytest.mark.parametrize("seed", range(120))
def test_crashes_make_no_difference(seed: int) -> None:
    """Executors die at any moment: the end is that of one that never did, and no try is lost."""
    chance = random.Random(seed)
    text, behaviours = random_batch(chance, fail_fast=False)
    whole = Machine(lambda: workflow_of(text, INNER), behaviours, seed=seed)
    whole.start()
    whole.run()
    crashed = Machine(lambda: workflow_of(text, INNER), behaviours, seed=seed + 1)
    crashed.start()
    while crashed.finish is None:
        assert crashed.step()
        if chance.random() < 0.3 and crashed.finish is None:
            crashed.crash(chance.randint(0, len(crashed.unwritten)))
    assert crashed.statuses() == whole.statuses()
    assert crashed.finish.result == whole.finish.result  # type: ignore[union-attr]
    assert sorted(crashed.by_key) == sorted(whole.by_key)
    for id, record in whole.records.items():
        other = crashed.records[id]
        assert [step.status for step in other.statuses] == [step.status for step in record.statuses]
        assert (other.outputs, other.state) == (record.outputs, record.state)


@pytest.mark.parametrize("seed", range(120))
def test_crashes_while_others_are_ended(seed: int) -> None:
    """With fail_fast the end depends on times; but it comes, and nothing is left running."""
    chance = random.Random(seed)
    text, behaviours = random_batch(chance, fail_fast=True)
    machine = Machine(lambda: workflow_of(text, INNER), behaviours, seed=seed)
    machine.start()
    while machine.finish is None:
        assert machine.step()
        if chance.random() < 0.2 and machine.finish is None:
            machine.crash(chance.randint(0, len(machine.unwritten)))
    machine.write(len(machine.unwritten))
    strays = set(machine.state.stray_jobs("attempt:1"))
    for job in machine.jobs.values():
        assert job.status.is_finished or job.id in strays
    nodes = machine.make().root().nodes
    single = {join_id(id) for id, node in nodes.items() if node.kind is not NodeKind.GROUP}
    assert single <= machine.records.keys()
    assert all(record.status.is_finished for record in machine.records.values())


def test_a_crash_in_a_cancelled_bake() -> None:
    text = batch(task("a"), task("b", "enable: ${{ always() }}"), task("c"))
    machine = Machine(lambda: workflow_of(text), {"a": HANGS})
    machine.start()
    while machine.statuses().get("a") != "running":
        machine.step()
    machine.write(len(machine.unwritten))
    machine.state = machine.fresh_state()
    machine.state.cancel(machine.now)
    machine.start()
    machine.run()
    assert machine.statuses() == {"a": "cancelled", "b": "succeeded", "c": "skipped"}


def calls_of(rows: int) -> int:
    """How many calls a bake of ten layers of so many tasks makes of Python's functions."""
    layers = "".join(
        task(
            f"l{layer}",
            "strategy:",
            f"  max_parallel: {rows}",
            "  matrix:",
            f"    k: ${{{{ range({rows}) }}}}",
        )
        for layer in range(10)
    )
    calls = 0

    def count(_frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        machine = run_batch(batch(layers), eager=True)
    finally:
        sys.setprofile(None)
    assert len(machine.jobs) == 10 * rows
    assert machine.finish is not None
    assert machine.finish.result.value == "succeeded"
    return calls


def test_what_happens_to_one_task_costs_the_same_however_many_there_are() -> None:
    few, many = calls_of(20), calls_of(200)

    assert many < 10.5 * few


def test_a_job_that_the_platform_has_forgotten() -> None:
    machine = Machine(lambda: workflow_of(batch(task("a"))), {"a": HANGS})
    machine.start()
    while machine.statuses().get("a") != "running":
        machine.step()
    (job,) = machine.state.active_jobs()
    machine.active.clear()
    machine.state.job_gone(job, machine.now)
    machine.gather()
    machine.run()
    assert machine.statuses() == {"a": "failed"}
    assert machine.records["a"].message == f"Its job {job} is gone."
