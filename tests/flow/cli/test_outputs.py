"""What tasks and calls have given is shown: while the bake runs, and afterwards."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from neuro.domain.bakes import TaskStatus
from tests.flow.cli.keeper import Keeper
from tests.flow.cli.project import Person

SWEEP = """
kind: batch
defaults: {preset: small, cache: {strategy: none}}
tasks:
  - id: train
    image: ubuntu
    strategy: {matrix: {lr: [0.1, 0.2], net: ["a b", c]}}
    cmd: "echo ::set-output name=loss::${{ matrix.lr }}"
  - id: judge
    needs: [train]
    action: ws:judge
    args: {loss: "${{ needs.train.outputs.loss[0] }}"}
"""
JUDGE = """
kind: batch
inputs: {loss: {descr: Of the first one}}
outputs:
  verdict: {value: "${{ needs.say.outputs.text }}"}
tasks:
  - {id: say, image: ubuntu, preset: small, cmd: "echo ::set-output name=text::it is ${{ inputs.loss }}"}
"""  # noqa: E501


@pytest.fixture(scope="module")
def swept(with_platform: Person) -> tuple[Person, str]:
    """A bake that is over, and what was told of it."""
    person = with_platform
    person.write(".neuro/sweep.yml", SWEEP)
    person.write("judge.yml", JUDGE)
    return person, person.flow_ok("bake", "sweep", "-n", "swept")


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("│")] for line in text.splitlines() if "│" in line]


def test_a_bake_tells_the_outputs_of_tasks_and_calls_as_they_end(
    swept: tuple[Person, str],
) -> None:
    _, said = swept
    assert len(re.findall(r" train-\S+: succeeded in \S+; outputs: loss=0\.[12]\n", said)) == 4
    assert re.search(r" judge\.say: succeeded in \S+; outputs: text='it is 0\.1'\n", said)
    assert re.search(r" judge: succeeded in \S+; outputs: verdict='it is 0\.1'\n", said)


def test_outputs_stand_beside_the_values_of_the_matrix(swept: tuple[Person, str]) -> None:
    person, _ = swept
    told = person.flow_ok("inspect", "--outputs", "swept")

    head, *found = rows(told)
    assert head == ["ID", "STATUS", "lr", "net", "loss"]
    assert sorted(row[1:] for row in found) == [
        ["succeeded", "0.1", "a b", "0.1"],
        ["succeeded", "0.1", "c", "0.1"],
        ["succeeded", "0.2", "a b", "0.2"],
        ["succeeded", "0.2", "c", "0.2"],
    ]
    assert "judge:\n  verdict: it is 0.1\n" in told


def test_what_is_known_of_a_bake_can_be_had_as_json(swept: tuple[Person, str]) -> None:
    person, _ = swept
    bake = json.loads(person.flow_ok("inspect", "--json", "swept"))

    assert (bake["name"], bake["batch"], bake["status"]) == ("swept", "sweep", "succeeded")
    tasks = {task["id"]: task for task in bake["tasks"]}
    assert tasks["judge"]["outputs"] == {"verdict": "it is 0.1"}
    assert {"lr": 0.2, "net": "c"} in [task["matrix"] for task in tasks.values()]
    assert all(task["seconds"] > 0 for task in tasks.values())
    bakes = json.loads(person.flow_ok("bakes", "--json"))
    (listed,) = (it for it in bakes if it["name"] == "swept")
    assert listed == {key: bake[key] for key in listed}
    shown = json.loads(person.flow_ok("show", "--json", "swept", "judge"))
    assert shown["outputs"] == {"verdict": "it is 0.1"}
    tasks["judge"].pop("matrix")
    assert shown == tasks["judge"]


def test_a_bake_that_goes_on_is_told_as_a_line_of_json_for_each_change(
    swept: tuple[Person, str],
) -> None:
    person, _ = swept
    done = person.flow("bake", "sweep", "-n", "told", "--json")

    first, *changes, last = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr) == (0, "")
    assert (first["event"], first["name"], first["status"]) == ("bake", "told", "pending")
    assert (last["event"], last["id"], last["status"]) == ("bake", first["id"], "succeeded")
    assert datetime.fromisoformat(last["finished_at"]) > datetime.fromisoformat(last["started_at"])
    tasks = [it for it in changes if it["event"] == "task"]
    judged = [it for it in tasks if it["id"] == "judge.say"]
    statuses = [it["status"] for it in judged]
    # Who is behind is told of what is, not of all that was.
    assert statuses == [it for it in ("pending", "running", "succeeded") if it in statuses]
    assert statuses[-1] == "succeeded"
    assert judged[-1]["outputs"] == {"text": "it is 0.1"}
    kept = json.loads(person.flow_ok("show", "--json", "told", "judge.say"))
    assert judged[-1] == {"event": "task", **kept}


GATED = """
kind: batch
defaults: {preset: small}
tasks:
  - id: waits
    image: ubuntu
    volumes: [storage:gate:/gate]
    bash: until [ -e /gate/open ]; do sleep 0.05; done
"""


def test_a_line_of_json_comes_when_a_task_runs_not_when_the_bake_is_over(person: Person) -> None:
    person.write(".neuro/gated.yml", GATED)
    person.write("open", "")
    person.ok("mkdir", "storage:gate")
    with person.watch("bake", "gated", "--json") as shown:
        shown.until('"id":"waits","status":"running"')
        person.ok("cp", str(person.project / "open"), "storage:gate/open")
        code = shown.end()

    last = json.loads(shown.shown.splitlines()[-1])
    assert (code, last["event"], last["status"]) == (0, "bake", "succeeded")


def test_a_bake_that_failed_and_its_restart_are_told_as_json(person: Person) -> None:
    person.write(
        ".neuro/breaks.yml",
        "kind: batch\ndefaults: {preset: small}\n"
        "tasks: [{id: breaks, image: ubuntu, bash: exit 3}]\n",
    )
    done = person.flow("bake", "breaks", "-n", "breaks", "--json")
    again = person.flow("restart", "breaks", "--json")
    watched = person.flow("inspect", "breaks", "--watch", "--json")

    assert [it.returncode for it in (done, again, watched)] == [1, 1, 1]
    for number, it in ((1, done), (2, again), (2, watched)):
        lines = [json.loads(line) for line in it.stdout.splitlines()]
        assert {line["attempt"] for line in lines if line["event"] == "bake"} == {number}
        assert lines[-1]["status"] == "failed"
        assert ("breaks", "failed", "exit code 3") in [
            (line["id"], line["status"], line.get("message")) for line in lines
        ]


def test_a_bake_that_is_left_alone_is_told_as_one_line_of_json(person: Person) -> None:
    person.write(
        ".neuro/left.yml",
        'kind: batch\ndefaults: {preset: small}\ntasks: [{id: a, image: ubuntu, cmd: "true"}]\n',
    )
    (line,) = person.flow_ok("bake", "left", "--detach", "--json").splitlines()

    bake = json.loads(line)
    assert bake["id"].startswith("bake-")
    person.flow_ok("inspect", "--watch", bake["id"])


def test_the_jobs_that_were_stopped_are_told_as_json(person: Person) -> None:
    person.flow_ok("run", "serves")

    stopped = json.loads(person.flow_ok("kill", "ALL", "--json"))
    again = json.loads(person.flow_ok("kill", "serves", "--json"))

    assert [(it["job"], it["killed"], it["error"]) for it in stopped] == [("serves", True, None)]
    assert [(it["id"], it["killed"]) for it in again] == [(stopped[0]["id"], False)]


def test_outputs_of_tasks_and_calls_are_shown_with_them(swept: tuple[Person, str]) -> None:
    person, _ = swept
    shown = person.flow("show", "swept", "judge")
    assert "Outputs:\n  verdict: it is 0.1\n" in shown.stderr
    assert "verdict:" not in shown.stdout  # It is the job's.
    told = person.flow_ok("inspect", "swept")
    assert "\n  judge: verdict='it is 0.1'\n" in told
    assert re.search(r"Attempt #1 succeeded in \d", told)
    head, *found = rows(told)
    assert head[-1] == "TOOK"
    assert all(re.fullmatch(r"\d+(\.\d)?s|\d+m.*", row[-1]) for row in found)
    bakes = rows(person.flow_ok("bakes"))
    assert bakes[0][-1] == "TOOK"
    assert re.match(r"\d", bakes[1][-1])


def test_the_executor_of_a_cancelled_bake_has_not_failed(person: Person) -> None:
    person.write(
        ".neuro/waits.yml",
        "kind: batch\ndefaults: {preset: small}\n"
        "tasks: [{id: a, image: ubuntu, cmd: sleep 1000}]\n",
    )
    person.flow_ok("bake", "waits", "-n", "waits", "--detach")
    with person.watch("inspect", "--watch", "waits") as shown:
        shown.until("a: running")
        person.flow_ok("cancel", "waits")
        shown.until("attempt #1 cancelled")
    (executor,) = re.findall(r"Executor (\S+)", person.flow_ok("inspect", "waits"))
    person.run("attach", executor)  # Until it has ended.

    assert f"Executor {executor} ended\n" in person.flow_ok("inspect", "waits")


def test_outputs_are_told_where_the_files_of_the_bake_cannot_be_read(
    person: Person,
) -> None:
    keeper = Keeper(person)
    attempt = keeper.attempt(keeper.bake("gone"))
    keeper.task(attempt, "fetch", TaskStatus.SUCCEEDED, outputs={"n": "one\ntwo"})

    assert person.flow_ok("inspect", "--outputs", "gone") == "fetch:\n  n: one\n    two\n"
