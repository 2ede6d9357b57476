"""Bakes from the command line to their end: planned, driven, watched, restarted, cancelled."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket

import pytest

from neuro.client.blocking import run
from neuro.domain.bakes import TaskStatus
from tests.flow.cli.keeper import Keeper
from tests.flow.cli.project import NEURO_FLOW, Person

DOCS = Path(__file__).parents[3] / "docs"
SWEEP = """
kind: batch
params:
  lr: "0.1"
  marker: ""
defaults: {preset: small}
tasks:
  - id: fetch
    image: ubuntu
    bash: echo fetched ${{ params.marker }}; echo "::set-output name=size::7"
  - id: train
    needs: [fetch]
    strategy: {matrix: {seed: [1, 2]}}
    image: ubuntu
    bash: echo size ${{ needs.fetch.outputs.size }} lr ${{ params.lr }} seed ${{ matrix.seed }}
  - id: report
    needs: [train]
    image: ubuntu
    bash: echo reported
"""
FAILS = """
kind: batch
tasks:
  - id: good
    image: ubuntu
    bash: echo fine; sleep 0.1
  - id: bad
    needs: []
    image: ubuntu
    bash: for n in {1..30}; do echo step $n; done; exit 3
  - id: never
    needs: [good, bad]
    image: ubuntu
    cmd: "true"
"""
WAITS = """
kind: batch
tasks:
  - id: waits
    image: ubuntu
    preset: small
    bash: sleep 1000
  - {id: then, image: ubuntu, preset: small, cmd: "true"}
"""
DEEP = r"""
kind: batch
tasks:
  - id: c
    image: ubuntu
    bash: printf '1%%\r2%%\n\e[31mloss\e[0m\n'; exit 3
"""
LOCAL = """
kind: batch
tasks:
  - {id: prepare, action: "ws:prepare"}
  - {id: use, image: ubuntu, needs: [prepare], cmd: "echo ${{ needs.prepare.outputs.word }}"}
"""


CROWDED = """
kind: batch
defaults: {preset: large}
tasks:
  - {id: one, image: ubuntu, needs: [], bash: sleep 1000}
  - {id: two, image: ubuntu, needs: [], bash: sleep 1000}
"""


@pytest.fixture
def baker(person: Person) -> Iterator[Person]:
    keeper = Keeper(person)
    project = run(keeper.client.flows.project_by_name("example"))
    if project is not None:
        run(keeper.client.flows.delete_project(project.id))
    for name, text in (("sweep", SWEEP), ("fails", FAILS), ("waits", WAITS), ("local", LOCAL)):
        person.write(f".neuro/{name}.yml", text)
    yield person
    for bake in person.flow_ok("-q", "bakes").split():
        person.flow("cancel", bake)


def test_what_waits_in_a_bake_says_what_for(baker: Person) -> None:
    baker.write(".neuro/crowded.yml", CROWDED)

    with baker.watch("bake", "crowded", "-n", "crowded") as it:
        it.until("pending: Waits for 15.9 CPU")
        it.interrupt()
        assert it.end() == 0

    shown = baker.flow_ok("inspect", "crowded")
    assert re.search(r"^  (one|two): Waits for 15\.9 CPU", shown, re.MULTILINE)


def test_programs_are_told_of_bakes_and_plans(baker: Person) -> None:
    baker.flow_ok("bake", "sweep", "-n", "told")

    (bake,) = json.loads(baker.flow_ok("bakes", "--json"))
    seen = json.loads(baker.flow_ok("inspect", "told", "--json"))
    plan = json.loads(baker.flow_ok("plan", "sweep", "--json"))
    jobs = json.loads(baker.flow_ok("ps", "--json"))
    shown = json.loads(baker.flow_ok("show", "hello", "--json"))

    assert (bake["name"], bake["status"]) == ("told", "succeeded")
    fetch = next(task for task in seen["tasks"] if task["id"] == "fetch")
    assert (fetch["status"], fetch["outputs"]) == ("succeeded", {"size": "7"})
    assert plan["tasks"][0]["task"] == "fetch"
    assert {"job_id", "suffix", "job"} <= jobs[0].keys()
    assert shown["hello"]["image"] == "ubuntu"
    assert json.loads(baker.flow_ok("schedules", "--json")) == []


def test_a_bake_is_watched_to_its_end(baker: Person) -> None:
    done = baker.flow("bake", "sweep", "-n", "first", "-t", "a")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"Bake bake-[0-9a-f-]{36} \(first\) of batch sweep is created\.", lines[0])
    said = [line.partition(" ")[2] for line in lines[1:-1]]
    assert sorted(line.partition(" in ")[0] for line in said if "succeeded" in line) == [
        "fetch: succeeded",
        "report: succeeded",
        "train-seed-1: succeeded",
        "train-seed-2: succeeded",
    ]
    assert said[-1].startswith("report: succeeded in ")
    assert re.fullmatch(r"Bake first: attempt #1 succeeded in \S+ \(4/4 done\)", lines[-1])
    shown = baker.flow_ok("-q", "show", "first", "train-seed-2")
    assert shown == "size 7 lr 0.1 seed 2\n"
    assert baker.flow_ok("-q", "bakes", "-t", "a").strip() in lines[0]
    told = baker.flow_ok("inspect", "first")
    assert told.splitlines()[2:5] == ["Batch: sweep", "Tags: a", "Parameters: lr=0.1, marker=''"]
    assert re.search(r"Executor job-\S+ succeeded\n", told)


def test_the_guide_begins_with_a_batch_that_can_be_baked(baker: Person) -> None:
    examples = [
        (DOCS / name).read_text().partition("```yaml\n")[2].partition("```")[0]
        for name in ("guide/batch.md", "ru/guide/batch.md")
    ]
    assert examples[0] == examples[1]
    baker.write(".neuro/guide.yml", examples[0])

    baker.flow_ok("bake", "guide", "-n", "guide", "-p", "epochs", "3")

    said = "linear learns from pictures.npz, 3 epochs\n"
    assert baker.flow_ok("-q", "show", "guide", "train-lr-0.1-model-linear") == said
    losses = [
        line.split()[0] for line in baker.flow_ok("-q", "show", "guide", "report").split("\n")[:-1]
    ]
    assert losses == ["0.5", "0.05", "0.5", "0.05"]


def test_what_was_done_before_is_foretold_and_taken(baker: Person) -> None:
    mark = ("-p", "marker", "foretold")
    assert "runs" in baker.flow_ok("plan", "sweep", *mark)
    baker.flow_ok("bake", "sweep", *mark)

    planned = baker.flow_ok("plan", "sweep", *mark)
    assert planned.endswith("4 tasks, 4 answered by earlier bakes.\n")
    assert "◆ fetch\n├─ ◆ train-seed-1\n├─ ◆ train-seed-2\n◆ report\n" in planned
    # Of what another parameter changes, what comes after depends on outcomes.
    changed = baker.flow_ok("plan", "sweep", *mark, "-p", "lr", "0.5")
    assert "4 tasks, 1 answered by earlier bakes." in changed

    again = baker.flow_ok("bake", "sweep", *mark)
    assert len(re.findall(": cached(?:\n|; outputs: )", again)) == 4
    baker.flow_ok("clear-cache", "sweep", "report")
    assert "4 tasks, 3 answered" in baker.flow_ok("plan", "sweep", *mark)
    # A matrix is all of its rows.
    said = baker.flow_ok("clear-cache", "sweep", "train")
    assert said == ("Forgot the cached outcomes of task train (2 tasks) of batch sweep.\n")
    assert "4 tasks, 1 answered" in baker.flow_ok("plan", "sweep", *mark)
    assert "Did you mean 'report'?" in baker.flow("clear-cache", "sweep", "raport").stderr
    assert "Did you mean 'train'?" in baker.flow("clear-cache", "sweep", "trian").stderr


def test_presets_are_known_before_anything_starts(baker: Person) -> None:
    before = baker.flow_ok("-q", "bakes")
    baker.write(".neuro/late.yml", SWEEP.replace("defaults: {preset: small}", "defaults: {}"))
    text = (baker.project / ".neuro/late.yml").read_text()
    baker.write(".neuro/late.yml", text.replace("    needs: [train]\n", "    preset: smal\n"))

    for words in (["plan", "late"], ["bake", "late"]):
        done = baker.flow(*words)
        assert done.returncode == 1
        assert "has no preset 'smal'" in done.stderr
        assert 'in ".neuro/late.yml", line 17, column 13' in done.stderr
        assert "Did you mean 'small'?" in done.stderr
    assert baker.flow_ok("-q", "bakes") == before


CALLS = """
kind: batch
tasks:
  - {id: list, image: ubuntu, bash: "echo '::set-output name=word::made'"}
  - {id: call, action: "ws:inner", args: {word: "${{ needs.list.outputs.word }}"}}
  - {id: unused, action: "ws:inner", args: {word: x}, needs: [], enable: false}
  - {id: end, image: ubuntu, needs: [call], cmd: "echo ${{ needs.call.outputs.word }}"}
"""
INNER = """
kind: batch
inputs: {word: {}}
outputs: {word: {value: "${{ needs.inside.outputs.word }}"}}
tasks:
  - {id: inside, image: ubuntu, bash: "echo '::set-output name=word::${{ inputs.word }}'"}
"""


def test_what_calls_give_is_foretold_from_what_is_in_them(baker: Person) -> None:
    baker.write(".neuro/calls.yml", CALLS)
    baker.write("inner.yml", INNER)

    def foretold() -> dict[str, str]:
        rows = [line.split("│") for line in baker.flow_ok("plan", "calls").splitlines()[4:10]]
        return {row[0].strip(): row[4].split()[0] for row in rows}

    skipped = {"unused": "skipped", "unused.inside": "skipped"}
    assert foretold() == {
        "list": "runs", "call": "depends", "call.inside": "depends", "end": "depends", **skipped,
    }  # fmt: skip
    baker.flow_ok("-q", "bake", "calls")
    assert foretold() == {
        "list": "cached", "call": "runs", "call.inside": "cached", "end": "cached", **skipped,
    }  # fmt: skip


def test_bakes_of_one_group_wait_for_each_other(baker: Person) -> None:
    baker.write(".neuro/turns.yml", WAITS.replace("kind: batch", "kind: batch\nconcurrency: one"))
    baker.flow_ok("bake", "turns", "--detach", "-n", "first")

    with baker.watch("bake", "turns", "-n", "second") as watching:
        watching.until("waits for bake first of the same concurrency group\n")
        baker.flow_ok("cancel", "first")
        watching.until("waits: running\n")
        baker.flow_ok("cancel", "second")
        assert watching.end() == 1


@pytest.mark.parametrize(
    ("batch", "tag"),
    [
        ("nights/in_may/Sweep", "flow:nights/in-may/sweep"),
        ("big net/for two", "flow:big-net/for-two"),
        ("l" * 250, f"flow:{'l' * 240}"),
    ],
)
def test_a_batch_in_any_folder_is_one_like_all(baker: Person, batch: str, tag: str) -> None:
    (baker.project / ".neuro/local.yml").unlink()  # Its action is not there.
    turns = "concurrency: '${{ flow.id }}'\nschedule: {cron: 0 3 * * *}"
    baker.write(f".neuro/{batch}.yml", SWEEP.replace("kind: batch", f"kind: batch\n{turns}"))
    mark = ("-p", "marker", batch)
    assert baker.flow_ok("check").endswith(" are fine.\n")

    baker.flow_ok("bake", batch, *mark, "-n", "own")

    inspected = baker.flow_ok("inspect", "own")
    assert f"\nBatch: {batch}\n" in inspected
    assert f" {batch} " in baker.flow_ok("bakes")
    assert baker.flow_ok("-q", "show", "own", "train-seed-1") == "size 7 lr 0.1 seed 1\n"
    assert len(baker.ok("-q", "ps", "-a", "-t", tag).split()) == 5  # four tasks, and the main job
    baker.flow_ok("restart", "own", "--no-from-failed")
    assert baker.flow_ok("inspect", "own").count("cached") == 4
    assert "4 answered by earlier bakes" in baker.flow_ok("plan", batch, *mark)
    assert baker.offered("clear-cache", batch, "f") == ["fetch"]
    baker.flow_ok("clear-cache", batch, "fetch")
    assert baker.flow_ok("plan", batch, *mark).endswith("\n4 tasks.\n")
    baker.flow_ok("schedule", f".//{batch}.yml")
    assert baker.flow_ok("-q", "schedules") == f"{batch}\n"
    assert baker.flow_ok("-q", "unschedule", batch) == f"{batch}\n"
    assert batch in baker.offered("bake", "")
    (baker.project / f".neuro/{batch}.yml").unlink()


@pytest.mark.parametrize("batch", ["bell\aring", "/".join(["far"] * 65)])
def test_what_no_batch_can_be_called_is_told_before_it_is_baked(baker: Person, batch: str) -> None:
    (baker.project / ".neuro/local.yml").unlink()  # Its action is not there.
    path = baker.write(f".neuro/{batch}.yml", SWEEP)
    try:
        tries = [
            baker.flow(*words)
            for words in (["check"], ["plan", batch], ["bake", batch], ["schedule", batch])
        ]
    finally:
        path.unlink()

    assert [done.returncode for done in tries] == [1] * 4
    firsts = [(done.stdout + done.stderr).partition("\n")[0] for done in tries]
    (told,) = {line.removeprefix("ERROR: ") for line in firsts}
    assert told.startswith("Invalid batch '")
    assert baker.flow_ok("-q", "bakes") == ""


def test_parameters_of_options_go_before_those_of_a_file(baker: Person) -> None:
    baker.write("params.yml", "lr: 010\nmarker: file\n")

    baker.flow_ok(
        "-q", "bake", "sweep", "-n", "p", "--meta-from-file", "params.yml", "-p", "marker", "own"
    )

    assert baker.flow_ok("-q", "show", "p", "fetch") == "fetched own\n"
    assert "lr 010 " in baker.flow_ok("-q", "show", "p", "train-seed-1")


def test_a_bake_that_fails_shows_why(baker: Person) -> None:
    done = baker.flow("bake", "fails", "-n", "bad")

    assert done.returncode == 1
    end = done.stdout[done.stdout.index("Bake bad: ") :].splitlines()
    assert end[0].startswith("Bake bad: attempt #1 failed in ")
    assert end[2].startswith("✗ bad: ")
    assert end[3:14] == [
        *(f"    step {n}" for n in range(21, 31)),
        "  all of its output: neuro-flow show bad bad",
    ]
    assert "neuro-flow restart bad" in done.stderr

    again = baker.flow("-q", "restart", "bad")
    assert (again.returncode, again.stderr) == (1, "")
    assert again.stdout.startswith("bake-")
    assert baker.flow_ok("inspect", "bad").splitlines()[3].startswith("Attempt #2 failed in ")
    assert baker.offered("inspect", "bad", "-a", "") == ["1", "2"]


def test_of_a_failure_deep_in_calls_the_task_is_shown(baker: Person) -> None:
    call = "tasks: [{id: %s, action: 'ws:.neuro/%s'}]\n"
    baker.write(".neuro/calls.yml", "kind: batch\n" + call % ("a", "a"))
    baker.write(".neuro/a.yml", "kind: batch\n" + call % ("b", "b"))
    baker.write(".neuro/b.yml", DEEP)

    done = baker.flow("bake", "calls", "-n", "deep")

    end = done.stdout[done.stdout.index("Bake deep: ") :].splitlines()
    assert end[1:] == [
        "",
        "✗ a.b.c: exit code 3",
        "    2%",
        "    loss",
        "  all of its output: neuro-flow show deep a.b.c",
    ]


def test_failures_that_are_allowed_are_shown_after_the_one_that_is_not(baker: Person) -> None:
    allowed = "  - {id: %s, image: ubuntu, needs: [], cmd: 'false', continue_on_error: true}\n"
    real = "  - {id: real, image: ubuntu, needs: [a, b], cmd: 'false'}\n"
    head = "kind: batch\ndefaults: {fail_fast: false}\ntasks:\n"
    baker.write(".neuro/allowed.yml", head + allowed % "a" + allowed % "b" + real)

    done = baker.flow("bake", "allowed")

    failed = re.findall("^✗ (.*)", done.stdout, re.MULTILINE)
    assert failed == ["real: exit code 1", *(f"{it}: exit code 1; it may fail" for it in "ab")]


def test_a_bake_goes_on_without_being_watched(baker: Person) -> None:
    bake = baker.flow_ok("-q", "bake", "waits", "--detach", "-n", "alone").strip()

    assert bake.startswith("bake-")
    twice = baker.flow("bake", "waits", "--detach", "-n", "alone")
    assert (twice.returncode, "alone" in twice.stderr) == (1, True)
    with baker.watch("inspect", "alone", "--watch") as watching:
        watching.until("waits: running\n")
        assert baker.flow_ok("-q", "cancel", "alone").strip() == bake
        assert watching.end() == 1
        assert "waits: cancelled" in watching.shown
        assert "Bake alone: attempt #1 cancelled in " in watching.shown


def test_control_c_in_a_terminal_leaves_the_bake(baker: Person) -> None:
    with baker.flow_terminal("bake", "waits", "-n", "seen", rows=12, columns=70) as shown:
        shown.until("●")
        shown.until("waits")
        shown.until("0/2 done · 1 running")
        shown.press("\x03")
        assert shown.end() == 0
        assert "Bake seen goes on." in shown.shown
    keeper = Keeper(baker)
    bake = run(keeper.bakes.by_name(keeper.project_id, "seen"))
    assert bake is not None
    assert bake.last_attempt is not None
    assert not bake.last_attempt.result.is_finished


def test_a_bake_driven_from_the_terminal(baker: Person) -> None:
    done = baker.flow("bake", "sweep", "--local-executor", "-n", "here")

    assert done.returncode == 0, done.stderr
    assert "(4/4 done)" in done.stdout
    assert "Executor" not in baker.flow_ok("inspect", "here")
    assert baker.flow("bake", "fails", "--local-executor").returncode == 1


def test_a_bake_that_is_driven_here_follows_its_server(baker: Person) -> None:
    baker.write(
        ".neuro/moves.yml",
        """
kind: batch
defaults: {preset: small, volumes: ["storage:gates:/gates:ro"]}
tasks:
  - {id: first, image: ubuntu, bash: until test -e /gates/open; do sleep 0.05; done}
  - {id: then, image: ubuntu, cmd: echo moved}
""",
    )
    baker.ok("mkdir", "-p", "storage:gates")
    port = Keeper(baker).port
    with baker.watch("bake", "moves", "--local-executor") as watching, socket() as taken:
        watching.until("first: running\n")
        baker.ok("down")
        taken.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))  # so that it is not chosen again
        baker.ok("up", "--port", "0")
        watching.until("The server is at ")
        baker.ok("mkdir", "storage:gates/open")
        assert watching.end() == 0
        assert "then: succeeded" in watching.shown


def test_control_c_cancels_a_bake_that_is_driven_here(baker: Person) -> None:
    with baker.watch("bake", "waits", "--local-executor", "-n", "mine") as watching:
        watching.until("waits: running\n")
        watching.interrupt()
        watching.until("Cancelling: what runs is being stopped.")
        assert watching.end() == 130
        assert "waits: cancelled" in watching.shown
        assert "Bake mine: attempt #1 cancelled in " in watching.shown
    assert baker.ok("-q", "ps") == ""


def test_local_actions_run_first_and_their_failure_is_the_bakes(baker: Person) -> None:
    action = "kind: local\noutputs: {word: {descr: w}}\n"
    baker.write("prepare.yml", action + "bash: echo working; echo '::set-output name=word::made'\n")

    done = baker.flow("bake", "local", "-n", "whole")
    assert done.returncode == 0, done.stderr
    assert "working\n" in done.stderr
    assert baker.flow_ok("-q", "show", "whole", "use") == "made\n"

    baker.write("prepare.yml", action + "bash: echo trouble; exit 7\n")
    failed = baker.flow("bake", "local", "-n", "broken")
    assert failed.returncode == 1
    assert "trouble\n" in failed.stderr
    assert "✗ prepare: exit code 7" in failed.stdout
    baker.write("prepare.yml", action + "cmd: no-such-program x\n")
    missing = baker.flow("bake", "local")
    assert "could not be started: no-such-program: No such file or directory\n" in missing.stdout
    # The files are those that were sent.
    baker.write("prepare.yml", action + "bash: 'true'\n")
    assert baker.flow("restart", "broken").returncode == 1


def test_the_main_job_takes_no_notice_of_a_terminal(baker: Person) -> None:
    keeper = Keeper(baker)
    with baker.watch("bake", "waits", "--local-executor", "-n", "lost") as first:
        first.until("waits: running\n")
        first.process.kill()
        first.process.wait()
    bake = run(keeper.bakes.by_name(keeper.project_id, "lost"))
    assert bake is not None
    with subprocess.Popen(
        [*NEURO_FLOW, "--fake-workspace", "execute", bake.id],
        cwd="/",
        env=baker.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as executor:
        assert executor.stdout is not None
        line = executor.stdout.readline()
        assert re.match(r"\[\d\d:\d\d:\d\d [+-]\d{4}\] ", line)
        for name in ("HUP", "INT", "QUIT", "TSTP"):
            executor.send_signal(getattr(signal, f"SIG{name}"))
        assert executor.poll() is None
        baker.flow_ok("cancel", "lost")
        assert executor.wait(30) == 1
    tasks = run(keeper.bakes.tasks(run(keeper.bakes.attempts(bake.id))[0].id))
    assert {it.yaml_id: it.status for it in tasks} == {
        "waits": TaskStatus.CANCELLED,
        "then": TaskStatus.SKIPPED,
    }


def test_a_batch_is_put_on_the_clock_and_taken_off(baker: Person) -> None:
    baker.write(
        ".neuro/nightly.yml",
        SWEEP.replace("kind: batch", "kind: batch\nschedule: {cron: 0 3 * * *}"),
    )
    none = baker.flow("schedules")
    assert (none.returncode, "neuro-flow schedule BATCH" in none.stderr) == (0, True)

    said = baker.flow_ok("schedule", "nightly", "-p", "lr", "0.7", "-t", "night")
    assert said.startswith("Batch nightly is started by the clock: 0 3 * * * (UTC); next ")
    assert said.endswith(f" {datetime.now().astimezone():%Z}.\n")
    listed = baker.flow_ok("schedules").splitlines()
    zone = datetime.now().astimezone().strftime("%Z")
    assert f"NEXT ({zone})" in listed[1]
    row = [cell.strip() for cell in listed[3].split("│")]
    assert row[:3] == ["nightly", "0 3 * * *", "UTC"]
    assert row[4:] == ["N/A", "N/A"]
    assert baker.offered("unschedule", "") == ["nightly"]
    wrong = baker.flow("unschedule", "nigthly")
    assert (wrong.returncode, "Did you mean 'nightly'?" in wrong.stderr) == (1, True)
    assert baker.flow_ok("-q", "unschedule", "nightly") == "nightly\n"
    assert baker.flow_ok("-q", "schedules") == ""


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["bake", "waits", "--detach"], ("asyncio", "aiohttp", "rich")),
        (["bakes"], ("asyncio", "aiohttp", "rich", "yaml", "neuro.flow.evaluate.jobs")),
    ],
)
def test_the_fast_path_imports_little(
    baker: Person, words: list[str], heavy: tuple[str, ...]
) -> None:
    script = (
        "import sys\nfrom neuro.flow.cli.main import execute\n"
        f"code = execute({words!r})\nprint(*sys.modules, file=sys.stderr)\nsys.exit(code)"
    )
    done = subprocess.run(
        [*NEURO_FLOW[:1], "-c", script],
        cwd=baker.project,
        env=baker.environment(),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert not set(heavy) & set(done.stderr.splitlines()[-1].split())
