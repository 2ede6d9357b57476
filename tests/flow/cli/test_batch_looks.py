"""What the commands around bakes show, without a platform."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from neuro.cli.render.table import Column
from neuro.domain.bakes import (
    Attempt,
    Bake,
    BakeEvent,
    ConfigsMeta,
    Task,
    TaskStatus,
    TaskTransition,
)
from neuro.domain.printable import display_width
from neuro.flow.cli import bakes, ps
from neuro.flow.cli.bake_looks import clock, how_long, word_of
from neuro.flow.cli.bake_names import is_bake_id
from neuro.flow.cli.batch_params import read_params
from neuro.flow.cli.board import Board, change_line
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.inspect import by_creation, task_row
from neuro.flow.cli.thin_table import Layout, Row, firm, thin_table
from tests.flow.cli.project import Person

START = datetime(2026, 11, 21, 16, 0, 0, tzinfo=UTC)
P, R, S, F, K = (
    TaskStatus.PENDING,
    TaskStatus.RUNNING,
    TaskStatus.SUCCEEDED,
    TaskStatus.FAILED,
    TaskStatus.SKIPPED,
)
ROWS = {f"train-{n}": ["fetch"] for n in range(8)}
GRAPHS = {"": {"fetch": [], **ROWS, "report": [*ROWS]}}


def attempt(result: TaskStatus = R, number: int = 1) -> Attempt:
    return Attempt(
        id="attempt-1",
        bake_id="bake-1",
        number=number,
        created_at=START,
        result=result,
        configs_meta=ConfigsMeta(workspace="/w", flow_config_id="f"),
    )


def bake(graphs: dict[str, dict[str, list[str]]] = GRAPHS) -> Bake:
    return Bake(
        id="bake-1",
        project_id="p",
        batch="sweep",
        created_at=START,
        graphs=graphs,
        name="nightly",
    )


def task(yaml_id: str, *steps: tuple[TaskStatus, float], message: str | None = None) -> Task:
    return Task(
        id=f"task-{yaml_id}",
        attempt_id="attempt-1",
        yaml_id=yaml_id,
        statuses=[
            TaskTransition(created_at=START + timedelta(seconds=at), status=status)
            for status, at in steps
        ],
        message=message,
    )


def board(*tasks: Task, result: TaskStatus = R) -> Board:
    made = Board(bake(), attempt(result))
    for one in tasks:
        made.take(BakeEvent(task=one))
    return made


DONE = task("fetch", (P, 0), (R, 1), (S, 3.4))
RUNNING = [task(f"train-{n}", (P, 4), (R, 5)) for n in range(2)]
WRONG = task("train-5", (P, 4), (R, 4.5), (F, 12), message="exit code 3:\nloss is nan")


def shown(it: Board, seconds: float = 20, width: int = 80, height: int = 24) -> str:
    now = START + timedelta(seconds=seconds)
    lines = it.lines(now, lambda text, _: text, width=width, height=height)
    assert all(display_width(line) <= width for line in lines)
    assert len(lines) < height
    return "\n".join(["", *lines, ""])


def test_the_board_of_a_bake_that_runs() -> None:
    assert (
        shown(board(DONE, *RUNNING, WRONG))
        == """
Bake nightly · running
  ✓ fetch    succeeded  2.4s
  ● train-0  running    15s
  ● train-1  running    15s
  ○ train-2  waiting
  ○ train-3  waiting
  ○ train-4  waiting
  ✗ train-5  failed     7.5s     exit code 3: loss is nan
  ○ train-6  waiting
  ○ train-7  waiting
  ○ report   waiting
  ━━━━━━──────────────────────── 2/10 done · 2 running · 1 failed · 20s
"""
    )


def test_what_matters_stays_where_not_all_fits() -> None:
    assert (
        shown(board(DONE, *RUNNING, WRONG), height=8, width=60)
        == """
Bake nightly · running
  ✓ fetch    succeeded  2.4s
  ● train-0  running    15s
  ● train-1  running    15s
  ✗ train-5  failed     7.5s     exit code 3: loss is nan
  … 6 more: 6 waiting
  ━━━─────────────── 2/10 done · 2 running · 1 failed · 20s
"""
    )


@pytest.mark.parametrize("width", [20, 30, 40, 200])
@pytest.mark.parametrize("height", [6, 8, 12, 50])
def test_nothing_is_wider_or_higher_than_the_terminal(width: int, height: int) -> None:
    shown(board(DONE, *RUNNING, WRONG), width=width, height=height)


def test_a_bake_that_waits_says_for_whom() -> None:
    it = Board(bake(), attempt(P, number=2))
    it.take(BakeEvent(ahead=["bake-0", "bake-00"]))

    assert shown(it).splitlines()[1:3] == [
        "Bake nightly · attempt #2 · pending",
        "  waits for bake bake-0 and 1 more of the same concurrency group",
    ]


def test_the_time_of_a_cancelled_bake_goes_on_until_its_tasks_are_stopped() -> None:
    cancelled = TaskStatus.CANCELLED
    assert shown(board(DONE, *RUNNING, result=cancelled)).endswith(" · 20s\n")
    ended = [task(it.yaml_id, (P, 4), (R, 5), (cancelled, 9)) for it in RUNNING]
    assert shown(board(DONE, *ended, result=cancelled)).endswith(" · 9.0s\n")


def test_rows_that_outputs_decide_come_up_with_their_graph() -> None:
    it = Board(bake({"": {"a": [], "rows": ["a"]}}), attempt())

    assert it.take(BakeEvent(task=task("rows-1", (P, 1)))) is not None
    assert not it.knows("rows-1")
    it.see(bake({"": {"a": [], "rows-1": ["a"], "rows-2": ["a"]}}))
    assert it.knows("rows-1")
    assert it.summary() == "0/3 done"


def test_a_call_counts_by_what_is_in_it() -> None:
    it = Board(bake({"": {"call": []}, "call": {"call.a": [], "call.b": []}}), attempt())
    it.take(BakeEvent(task=task("call", (P, 0), (R, 1), (F, 9))))
    it.take(BakeEvent(task=task("call.a", (P, 0), (R, 1), (F, 9))))

    # It ends when all in it has: what is not told of was skipped.
    assert it.summary() == "2/2 done · 1 failed"
    assert [one.yaml_id for one in it.failed] == ["call.a"]


def test_what_is_in_a_call_that_is_skipped_is_done() -> None:
    graphs = {"": {"a": [], "t": []}, "a": {"a.b": []}, "a.b": {"a.b.c": []}}
    it = Board(bake(graphs), attempt())
    it.take(BakeEvent(task=task("a", (K, 1))))

    assert shown(it).splitlines()[2:-1] == ["  – a.b.c  skipped", "  ○ t      waiting"]
    assert it.summary() == "1/2 done"
    # A record of its own counts, whenever it comes.
    it.take(BakeEvent(task=task("a.b.c", (P, 0), (R, 1), (S, 2))))
    assert "  ✓ a.b.c  succeeded  1.0s" in shown(it)
    assert it.summary() == "1/2 done"


def test_a_call_that_only_repeats_what_failed_in_it_is_no_failure_of_its_own() -> None:
    graphs = {"": {"0": [], "a": []}, "a": {"a.b": []}, "a.b": {"a.b.c": []}}
    said = {
        "a": "Task a.b failed.",
        "a.b": "Task a.b.c failed.; it may fail",
        "a.b.c": "exit code 3",
    }
    it = Board(bake(graphs), attempt())
    for task_id, message in said.items():
        it.take(BakeEvent(task=task(task_id, (P, 0), (R, 1), (F, 9), message=message)))
    assert [one.yaml_id for one in it.failed] == ["a.b.c"]

    # One that failed by itself is, and comes before those that may fail.
    it.take(BakeEvent(task=task("a", (P, 0), (R, 1), (F, 9), message="No item 'x'")))
    it.take(BakeEvent(task=task("0", (P, 0), (R, 1), (F, 9), message="exit code 1; it may fail")))
    assert [one.yaml_id for one in it.failed] == ["a", "a.b.c", "0"]


def test_the_bar_of_a_bake_that_succeeded_is_green() -> None:
    tasks = [
        msgspec.structs.replace(WRONG, yaml_id=task_id, message="exit code 1; it may fail")
        for task_id in (*ROWS, "fetch", "report")
    ]
    for result, color in ((R, "red"), (S, "green")):
        it = board(*tasks, result=result)
        lines = it.lines(START, lambda text, fg: f"<{fg}>{text}", width=80, height=24)
        assert lines[-1].startswith(f"  <{color}>━")


def test_tasks_of_one_moment_stand_as_the_graphs_have_them() -> None:
    rows = {f"row-{n}": ["first"] for n in (2, 10, 1)}
    came = [task(task_id, (K, 5)) for task_id in ("row-1", "row-10", "row-2", "last")]

    found = by_creation(
        [*came, task("first", (P, 0))], {"": {"first": [], **rows, "last": [*rows]}}
    )

    assert [it.yaml_id for it in found] == ["first", "row-2", "row-10", "row-1", "last"]


def test_a_change_is_told_once() -> None:
    it = board(DONE)

    assert it.take(BakeEvent(task=DONE)) is None
    assert it.take(BakeEvent(task=WRONG)) is WRONG
    again = task("train-1", (P, 4), (R, 5), message="Try 1 of 3: exit code 1")
    assert it.take(BakeEvent(task=RUNNING[1])) is RUNNING[1]
    assert it.take(BakeEvent(task=again)) is again
    assert it.take(BakeEvent(task=again)) is None
    assert it.take(BakeEvent(task=RUNNING[1])) is None
    assert it.take(BakeEvent(attempt=attempt(F, number=7))) is None
    assert it.attempt.result is R


def test_lines_of_changes() -> None:
    assert change_line(RUNNING[0], START) == "16:00:05 train-0: running"
    assert change_line(DONE, START) == "16:00:03 fetch: succeeded in 2.4s"
    assert change_line(WRONG, START) == (
        "16:00:12 train-5: failed in 7.5s: exit code 3: loss is nan"
    )
    # Of a place in a file, what stands there needs lines of its own.
    message = "No item 'x'\n  in \".neuro/b.yml\", line 3, column 9\n    cmd: ${{ x }}\n        ^"
    assert change_line(msgspec.structs.replace(WRONG, message=message), START).endswith(
        ": No item 'x' in \".neuro/b.yml\", line 3, column 9"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0.0s"),
        (0, "0.0s"),
        (9.99, "9.9s"),
        (10, "10s"),
        (60, "1m"),
        (61.5, "1m 1s"),
        (3600, "1h"),
        (3601, "1h"),
        (90061, "1d 1h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert how_long(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("name", "word"), [("ночь-2", "ночь-2"), ("two words", "'two words'"), (None, "bake-1")]
)
def test_names_of_bakes_are_words_of_commands(name: str | None, word: str) -> None:
    assert word_of(msgspec.structs.replace(bake(), name=name)) == word


def test_times_have_their_date_where_it_is_another() -> None:
    assert clock(START, START) == "16:00:00"
    assert clock(START - timedelta(days=1), START) == "Nov 20 16:00"
    assert clock(START - timedelta(days=400), START) == "Oct 17 2025"


def painted(text: str, fg: str | None) -> str:
    return f"<{text}>" if fg else text


def test_a_thin_table_has_its_least_widths() -> None:
    layout = Layout((Column("A", min=6), firm("STATUS")), [Row(("名", "ok"), "green")])

    assert thin_table([layout], painted, None) == [
        "",
        "  A      │ STATUS",
        "╶────────┼────────╴",
        "  名     │ <ok>",
        "         ╵",
    ]


NARROW = """
  ID         │ STATUS │ WHEN
╶────────────┼────────┼────────────╴
  train-lr-  │ <ok>     │ 1 minute
  0.1        │        │ ago
    sweep    │        │
             ╵        ╵
"""


@pytest.mark.parametrize(
    ("available", "titles"),
    [(None, "ID RAW STATUS WHEN"), (56, "ID RAW STATUS WHEN"), (52, "ID STATUS WHEN")],
)
def test_a_thin_table_does_without_a_column_where_there_is_no_room(
    available: int | None, titles: str
) -> None:
    lines = thin(available)

    assert lines[1].replace(" │", "").split() == titles.split()
    assert len(lines) == 6  # The name is in a line of its own.
    assert all(display_width(line) <= (available or 99) for line in lines)


def test_a_thin_table_breaks_cells_where_there_is_no_room_at_all() -> None:
    assert "\n".join(thin(36)) + "\n" == NARROW


def thin(available: int | None) -> list[str]:
    raw = Column("RAW", shrinks=False, spare=1)
    row = Row(("train-lr-0.1\n  sweep", "job-12345678", "ok", "1 minute ago"), "green")
    layout = Layout((Column("ID"), raw, firm("STATUS"), firm("WHEN")), [row])
    return thin_table([layout], painted, available)


LONG_AGO = "59 minutes ago"
ID = "12345678-1234-1234-1234-123456789abc"


@pytest.mark.parametrize(
    "layouts",
    [
        bakes.layouts(
            [
                Row((f"bake-{ID}", name, "sweep-of-all", f"job-{ID}", "succeeded", LONG_AGO, "9m"))
                for name in ("", "nightly-of-the-large-model")
            ]
        ),
        ps.layouts(
            [
                Row((label, "succeeded", f"job-{ID}", LONG_AGO))
                for label in ("train", "multitrain fast")
            ]
        ),
    ],
)
@pytest.mark.parametrize("available", [80, 100, 120])
def test_lists_keep_ids_states_and_times_whole(layouts: list[Layout], available: int) -> None:
    lines = thin_table(layouts, painted, available)

    assert max(map(display_width, lines)) <= available
    assert sum(ID in line and "succeeded" in line for line in lines) in (0, 2)
    assert sum(LONG_AGO in line for line in lines) == 2


def test_parameters_of_a_file_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "params.yml"
    path.write_text("a: true\nb: ~\nc: 010\nd: 'x y'\ne:\n")

    assert read_params(path) == {"a": "true", "b": "~", "c": "010", "d": "x y", "e": ""}
    path.write_text("")
    assert read_params(path) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "holds no parameters"),
        ("a: 1\nb: [1]\n", "line 2"),
        ("a: 1\na: 2\n", "line 2: parameter a is given twice"),
        ("a: 'x\n", "line 2: this is not YAML: found unexpected end of stream"),
        ("a: \0\n", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_parameters_is_explained(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "params.yml"
    path.write_text(text)

    with pytest.raises(Failed, match=says):
        read_params(path)


def test_parameters_that_are_not_utf_8_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "params.yml"
    path.write_text("a: 1\n", "utf-16")

    with pytest.raises(Failed, match=r"params\.yml is not UTF-8 text: save it as UTF-8\.$"):
        read_params(path)


def test_a_task_that_waits_has_not_started() -> None:
    now = START + timedelta(seconds=20)

    assert task_row(task("train", (P, 4)), now).cells[3:] == ("N/A", "N/A", "N/A")
    skipped = task_row(task("train", (P, 4), (TaskStatus.SKIPPED, 5)), now)
    assert skipped.cells[3] == "N/A"
    assert task_row(RUNNING[0], now).cells[3] != "N/A"


def test_ids_of_bakes_have_a_shape() -> None:
    assert is_bake_id("bake-12345678-1234-1234-1234-123456789abc")
    assert not is_bake_id("bake-12345678")
    assert not is_bake_id("my-bake-12345678-1234-1234-1234-123456789abc")


BATCH = """
kind: batch
life_span: 1d
concurrency: gpu
schedule: {cron: 0 3 * * *, timezone: Europe/Berlin}
params:
  lr: "0.1"
tasks:
  - id: fetch
    image: ubuntu
    bash: echo "::set-output name=rows::[1, 2]"
  - id: never
    enable: false
    image: ubuntu
    cmd: "true"
  - id: train
    needs: [fetch]
    strategy: {matrix: {seed: [1, 2]}}
    image: ubuntu
    preset: cpu-small
    bash: echo ${{ params.lr }}
  - id: test
    strategy: {matrix: {row: "${{ from_json(needs.fetch.outputs.rows) }}"}}
    needs: [fetch]
    image: ubuntu
    cmd: echo ${{ matrix.row }}
  - id: report
    needs: [train, test]
    image: ubuntu
    cmd: "true"
"""


@pytest.fixture
def planner(alone: Person) -> Person:
    alone.write(".neuro/sweep.yaml", BATCH)
    alone.write("outside.yml", BATCH)
    alone.write(".neuro/deep/er.yml", "kind: 'batch'\ntasks: [{image: ubuntu, cmd: 'true'}]\n")
    return alone


PLANNED = """
Batch sweep of project example
Parameters: lr=7
Life span: 1d
Concurrency group: gpu; waits for its turn
Schedule: 0 3 * * * (Europe/Berlin), overlap: skip, catch up: last

  TASK         │ KIND              │ IMAGE  │ PRESET    │ THEN
╶──────────────┼───────────────────┼────────┼───────────┼─────────╴
  fetch        │ task              │ ubuntu │ default   │ runs
  never        │ task              │ ubuntu │ default   │ skipped
  train-seed-1 │ task              │ ubuntu │ cpu-small │ depends
  train-seed-2 │ task              │ ubuntu │ cpu-small │ depends
  test         │ matrix of outputs │        │           │ depends
  report       │ task              │ ubuntu │ default   │ depends
               ╵                   ╵        ╵           ╵
"""


def test_a_plan_shows_what_would_run(planner: Person) -> None:
    done = planner.flow("plan", "sweep", "-p", "lr", "7")

    assert done.returncode == 0
    assert "The cached outcomes are not known: You are not logged in." in done.stderr
    head, _, picture = ("\n" + done.stdout).partition("╵           ╵\n")
    assert head + "╵           ╵\n" == PLANNED
    assert "– never" in picture
    assert "○ test × as outputs say" in picture
    assert done.stdout.endswith("\n6 tasks, 1 skipped.\n")
    assert planner.flow_ok("-q", "plan", "deep/er").split() == ["task-1"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["plan", "swep"], 1, "There is no batch swep. Did you mean 'sweep'?"),
        (["plan", ".neuro/sweep.yaml"], 1, "The batch in this file is called 'sweep'."),
        (["plan", "../outside"], 1, "There is no batch ../outside."),
        (["plan", "other"], 1, "It would be /"),
        (["plan", "sweep", "-p", "lrr", "1"], 1, "Did you mean 'lr'?"),
        (["plan", "sweep", "--meta-from-file", "none.yml"], 1, "none.yml does not exist"),
        (["plan", "sweep", "-o", "graph.gif"], 2, ".dot, .gv, .pdf, .svg, .png"),
        (["plan", "sweep", "-o", "nowhere/graph.dot"], 1, "nowhere/graph.dot"),
        (["plan", "sweep", "-o", "nowhere/graph.pdf"], 1, "nowhere/graph.pdf"),
        (["bake", "swep"], 1, "Did you mean 'sweep'?"),
        (["bake", "sweep", "--detach", "--local-executor"], 2, "--local-executor"),
        (["bake", "sweep", "-n", "bake-12345678-1234-1234-1234-123456789abc"], 2, "another name"),
        (["schedule", "deep/er"], 1, "schedule:"),
        (["clear-cache", "swep"], 1, "Did you mean 'sweep'?"),
        (["clear-cache", "ALL", "task"], 2, "ALL is every task"),
        (["show", "sweep", "task", "-s", "x"], 2, "--suffix"),
        (["show", "hello", "--raw"], 2, "--raw"),
        (["bakes", "--since", "long ago"], 1, "'long ago' is not a date"),
        (["bakes"], 1, "You are not logged in"),
        (["inspect", "nightly"], 1, "You are not logged in"),
        (["executes"], 2, "execute"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    planner: Person, words: list[str], code: int, says: str
) -> None:
    done = planner.flow(*words)

    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_tells_every_mistake(planner: Person) -> None:
    planner.write(
        ".neuro/bad.yml",
        "kind: batch\ntasks:\n- {id: a, image: u, cmd: '${{ params.x }}', needs: [zz]}\n"
        "- {id: a, image: u}\n",
    )

    done = planner.flow("plan", "bad")

    assert done.returncode == 1
    for line in ("line 3", "line 4"):
        assert line in done.stderr


def test_a_graph_without_graphviz(planner: Person, tmp_path: Path) -> None:
    done = planner.flow("plan", "sweep", "-o", "graph.png", PATH=str(tmp_path))

    assert done.returncode == 1
    for words in ("apt install graphviz", "brew install graphviz", "graph.svg"):
        assert words in done.stderr
    for drawn in ("graph.svg", "graph.pdf"):
        assert planner.flow("plan", "sweep", "-o", drawn, PATH=str(tmp_path)).returncode == 0
    assert planner.flow_ok("plan", "sweep", "-o", "graph.dot") == "Saved the graph as graph.dot\n"
    assert (planner.project / "graph.dot").read_text().startswith('strict digraph "sweep" {')


@pytest.mark.parametrize(
    ("ending", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_a_graph_as_a_picture(planner: Person, ending: str, begin: bytes) -> None:
    planner.flow_ok("plan", "sweep", "--output-graph", f"graph.{ending}")

    assert (planner.project / f"graph.{ending}").read_bytes().startswith(begin)


def test_batches_and_their_parameters_are_offered(planner: Person) -> None:
    # An action of kind batch cannot be baked.
    planner.write(".neuro/actions/act.yml", "kind: batch\ninputs: {n: {}}\ntasks: []\n")
    assert planner.offered("bake", "") == ["deep/er", "sweep"]
    assert planner.offered("plan", "s") == ["sweep"]
    assert planner.offered("clear-cache", "A") == ["ALL"]
    assert planner.offered("bake", "sweep", "-p", "") == ["lr"]
    assert planner.offered("bake", "-p", "l") == ["lr"]
    assert planner.offered("exec") == []
    # Nobody is logged in, so that nothing is known of bakes.
    assert planner.offered("show", "hel") == ["hello"]
    assert planner.offered("inspect", "") == []


def test_help_leads_on(alone: Person) -> None:
    text = alone.flow_ok("--help")
    assert "Batches:\n  plan" in text
    assert "execute" not in text
    assert "exit code" in " ".join(alone.flow_ok("bake", "--help").split())
