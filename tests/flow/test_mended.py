"""What fails in the original when files are read or checked, and must not fail here.

Each test is named after what it proves. Running a bake has its own tests.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from neuro.domain.bakes import ConfigsMeta
from neuro.domain.problems import Position, Problem, Source
from neuro.flow.cli.bake_names import batch_names
from neuro.flow.evaluate.actions import bind_inputs
from neuro.flow.evaluate.batch.facts import Facts
from neuro.flow.evaluate.batch.graph import build
from neuro.flow.evaluate.batch.ground import place_of
from neuro.flow.evaluate.batch.sources import StoredFiles
from neuro.flow.evaluate.batch.unknown import unknown_frame, unknown_ground
from neuro.flow.evaluate.environment import Environment
from neuro.flow.evaluate.mixins import Mixins
from neuro.flow.expressions.evaluator import EvaluationError, ExpressionScope, evaluate
from neuro.flow.expressions.nodes import Template
from neuro.flow.expressions.parser import parse_template
from neuro.flow.model import Node
from neuro.flow.problems import Report
from neuro.flow.project import check as check_workspace
from neuro.flow.syntax import tree
from neuro.flow.syntax.reader import read_action, read_any, read_batch, read_live, read_project
from neuro.flow.workspace import find_workspace

BATCH = "kind: batch\n"
LOCAL = "kind: local\ncmd: 'true'\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "my_ws"
    (root / ".neuro").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def check(root: Path, text: str) -> list[Problem]:
    path = root / ".neuro" / "train.yml"
    path.write_text(BATCH + text)
    environment = Environment(user="user", cwd=root, cache_dir=root / "cache")
    return check_workspace(find_workspace(root), environment=environment)


def messages(root: Path, text: str) -> list[str]:
    return [problem.message for problem in check(root, text)]


def read(text: str) -> tree.BatchFile:
    report = Report()
    file = read_batch(Source("train.yml", BATCH + text), report)
    report.raise_if_any()
    assert file is not None
    return file


def nodes_of(file: tree.BatchFile) -> list[Node]:
    """The graph of a file that calls nothing."""
    facts = Facts(bake_id="", batch="train", workspace=Path("/ws"), user="user", checking=True)
    files = StoredFiles(ConfigsMeta(workspace="/ws", flow_config_id=""), {})
    report = Report()
    frame = unknown_frame(file.tasks, (), Mixins(file.mixins), ())
    graph = build(frame, unknown_ground(files, facts), report).graph
    report.raise_if_any()
    return [*graph.nodes.values()]


def rows_of(file: tree.BatchFile) -> list[Mapping[str, object]]:
    return [place_of(node).matrix for node in nodes_of(file)]


def value(text: str, **names: object) -> object:
    report = Report()
    template = parse_template(text, lambda _: Position(Source("", text), 1, 1), report)
    report.raise_if_any()
    assert isinstance(template, Template)
    return evaluate(template, ExpressionScope(names))


def told(kind: str, text: str) -> list[str]:
    readers = {"live": read_live, "batch": read_batch, "project": read_project}
    report = Report()
    readers.get(kind, read_action)(Source("file.yml", text), report)
    assert all(problem.at is not None for problem in report.problems)
    return [problem.message for problem in report.problems]


def test_an_action_that_calls_itself_is_told_at_once(root: Path) -> None:
    (root / "loop.yml").write_text(BATCH + "tasks: [{action: 'ws:loop'}]\n")
    assert messages(root, "tasks: [{action: 'ws:loop'}]") == [
        "Actions call each other in a circle: ws:loop -> ws:loop"
    ]


def test_a_diamond_listed_in_reverse_is_no_circle(root: Path) -> None:
    tasks = (
        "tasks:\n- {id: join, image: x, needs: [left, right]}\n"
        "- {id: left, image: x, needs: [top]}\n- {id: right, image: x, needs: [top]}\n"
        "- {id: top, image: x, needs: []}\n"
    )
    assert messages(root, tasks) == []


def test_a_circle_is_named(root: Path) -> None:
    tasks = "tasks:\n- {id: a, image: x, needs: [b]}\n- {id: b, image: x, needs: [a]}\n"
    assert messages(root, tasks) == ["Tasks need each other in a circle: a -> b -> a"]


def test_mixins_bring_needs_enable_strategy_and_cache_once() -> None:
    file = read(
        "mixins:\n  m: {image: x, volumes: [a], tags: [t], needs: [one], enable: true,\n"
        "      strategy: {matrix: {k: [1, 2, 3]}}, cache: {strategy: none}}\n"
        "tasks: [{id: one, image: x}, {id: two, mixins: [m], volumes: [b]}]\n"
    )
    report = Report()
    task = file.tasks[1]
    assert isinstance(task, tree.Task)
    whole = Mixins(file.mixins).apply(task, task.mixins, report)
    report.raise_if_any()
    _, *rows = nodes_of(file)
    assert whole.volumes is not None
    assert [part.constant for part in whole.volumes.parts] == ["b", "a"]
    assert whole.enable is not None
    assert whole.enable.constant is True
    assert whole.cache is not None
    assert whole.cache.strategy == "none"
    assert [row.id for row in rows] == [("two-k-1",), ("two-k-2",), ("two-k-3",)]
    assert [[*row.needs] for row in rows] == [[("one",)]] * 3


def test_rows_to_include_and_exclude_keep_their_types() -> None:
    file = read(
        "tasks:\n- image: x\n  strategy:\n    matrix:\n      k: [1, '1', true, 1.5]\n"
        "      exclude: [{k: 1}, {k: 1.5}]\n      include: [{k: 7}]\n"
    )
    rows = rows_of(file)
    assert [row["k"] for row in rows] == ["1", True, 7]
    assert [row["ORDINAL"] for row in rows] == [0, 1, 2]


def test_a_matrix_may_have_rows_to_include_only() -> None:
    file = read("tasks: [{image: x, strategy: {matrix: {include: [{a: 1}, {a: 2}]}}}]\n")
    assert [row["a"] for row in rows_of(file)] == [1, 2]


def test_a_key_to_exclude_that_there_is_not_has_a_place(root: Path) -> None:
    (problem,) = check(
        root, "tasks:\n- {image: x, strategy: {matrix: {k: [1], exclude: [{n: 1}]}}}\n"
    )
    assert problem.message == "'n' is not a key of the matrix"
    assert problem.at is not None
    assert problem.at[1:] == (3, 53)


def test_literal_arguments_fit_typed_inputs_and_defaults_are_always_there(root: Path) -> None:
    text = BATCH + (
        "inputs: {n: {type: int}, f: {type: float, default: 0.5}, b: {type: bool, default: true}}\n"
        "tasks: []\n"
    )
    (root / "typed.yml").write_text(text)
    assert messages(root, "tasks: [{action: 'ws:typed', args: {n: 5, b: false}}]") == []
    assert messages(root, "tasks: [{action: 'ws:typed', args: {n: '5'}}]") != []
    report = Report()
    action = read_action(Source("typed.yml", text), report)
    assert action is not None
    at = Position(Source("", ""), 1, 1)
    assert bind_inputs({"n": (5, at)}, action.inputs, at, report) == {"n": 5, "f": 0.5, "b": True}
    assert report.problems == []


def test_the_text_false_is_not_true() -> None:
    assert told("batch", BATCH + "tasks: [{image: x, enable: 'false'}]\n") == [
        "'false' is a string, not a bool, allowed: true, false"
    ]
    enable = read("tasks: [{image: x, enable: '${{ params.p }}'}]\n").tasks[0].enable
    assert enable is not None
    assert enable.type.convert("false") is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${{ False and 1 / 0 }}", False),
        ("${{ True or 1 / 0 }}", True),
        ("${{ range(5, 0) }}", []),
        ("${{ 1-2 }}", -1),
        ("${{ 1e5 }}", 100000.0),
        ("${{ .5 }}", 0.5),
        ("${{ 'a'=='b' }}", False),
        ("${{ 1\n  + 2 }}", 3),
        ("${{ Nonesuch }}", "name"),
    ],
)
def test_expressions_are_read_as_anybody_would(text: str, expected: object) -> None:
    assert value(text, Nonesuch="name") == expected


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("tasks:\n- {image: x, cmd: '${{ a b }}'}\n", 3, 26),
        ("tasks:\n- image: x\n  bash: |\n    one\n    ${{ nope() }}\n", 6, 9),
        ("tasks: [{image: x, cmd: '${{ len() }}'}]\n", 2, 30),
        ("tasks: [{image: x, needs: {a: done}}]\n", 2, 31),
        ("tasks: [{id: a, image: x, needs: [a]}]\n", 2, 35),
        ("tasks: ~\n", 2, 1),
    ],
)
def test_every_mistake_has_its_place(root: Path, text: str, line: int, column: int) -> None:
    (problem,) = check(root, text)
    assert problem.at is not None
    assert problem.at[1:] == (line, column)


def test_the_matrix_of_an_action_reads_its_inputs(root: Path) -> None:
    (root / "rows.yml").write_text(
        BATCH + "inputs: {n: {type: int}}\n"
        "tasks: [{image: x, strategy: {matrix: {k: '${{ range(inputs.n) }}'}}}]\n"
    )
    assert messages(root, "tasks: [{action: 'ws:rows', args: {n: 3}}]") == []


def test_help_and_init_need_no_project(tmp_path: Path) -> None:
    for words in (["--help"], ["init", "--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-m", "neuro.flow", *words],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: local\ncmd: x\noutputs: {a: {value: x}}\n", "unexpected key 'value'"),
        ("kind: local\ncmd: x\noutputs: {needs: [a]}\n", "expected a mapping, got a list"),
        ("kind: live\njob: {image: x, params: {}}\n", "unexpected key 'params'"),
        ("kind: batch\ntasks: []\noutputs: {a: {descr: x}}\n", "missing mandatory key 'value'"),
    ],
)
def test_what_an_action_cannot_have_is_told_as_a_mistake(text: str, message: str) -> None:
    assert told("action", text) == [message]


@pytest.mark.parametrize(
    "tasks",
    [
        "- {id: a, image: x}\n- {id: a, image: x}\n",
        "- {id: 'a_${{ matrix.k }}', image: x, strategy: {matrix: {k: [1]}}}\n"
        "- {id: a_1, image: x}\n",
        "- {image: x, strategy: {matrix: {k: [1, '1']}}}\n",
    ],
)
def test_an_id_is_there_once(root: Path, tasks: str) -> None:
    (message,) = messages(root, f"tasks:\n{tasks}")
    assert "is there twice" in message or "Two rows of the matrix have the id" in message


def test_batches_of_both_suffixes_are_offered(root: Path) -> None:
    for name in ("one.yml", "two.yaml", "sub/three.yaml"):
        path = root / ".neuro" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(BATCH + "tasks: []\n")
    (root / ".neuro" / "live.yml").write_text("kind: live\njobs: {}\n")
    assert sorted(batch_names(find_workspace(root))) == ["one", "sub/three", "two"]


def test_formats_do_not_reach_into_objects() -> None:
    with pytest.raises(EvaluationError):
        value("${{ fmt('{0.__class__}', 1) }}")


def test_git_may_be_read_in_defaults_and_images(root: Path) -> None:
    text = (
        "defaults: {env: {SHA: '${{ git.sha }}'}}\n"
        "images: {i: {ref: 'image:i:${{ git.branch }}'}}\ntasks: []\n"
    )
    assert messages(root, text) == []


def test_a_local_action_inside_a_call_waits_for_no_remote_task(root: Path) -> None:
    (root / "here.yml").write_text(LOCAL)
    (root / "call.yml").write_text(BATCH + "tasks: [{id: inner, action: 'ws:here'}]\n")
    (root / "outer.yml").write_text(BATCH + "tasks: [{id: deep, action: 'ws:call'}]\n")
    tasks = "tasks:\n- {id: far, image: x}\n- {id: a, action: 'ws:outer', needs: [far]}\n"
    assert messages(root, tasks) == ["Local action 'a.deep.inner' depends on remote task 'far'"]
    assert messages(root, tasks.replace("needs: [far]", "needs: []")) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("live", ""),
        ("live", BATCH + "tasks: []\n"),
        ("batch", "kind: live\njobs: {}\n"),
        ("batch", BATCH + "tasks: [{image: x, tags: foo}]\n"),
        ("batch", BATCH + "tasks: [~]\n"),
        ("batch", BATCH + "tasks: [{image: x, needs: a}]\n"),
        ("project", "[]\n"),
        ("action", "kind: nonsense\n"),
    ],
)
def test_what_is_no_flow_file_is_told_and_nothing_raises(kind: str, text: str) -> None:
    assert told(kind, text) != []
    read_any(Source("file.yml", text), Report())


@pytest.mark.parametrize("section", ["volumes", "images", "mixins", "params", "defaults"])
def test_empty_sections_are_as_good_as_none(root: Path, section: str) -> None:
    assert (
        messages(root, f"{section}: ~\ntasks: [{{image: x, volumes: ~, tags: ~, env: ~}}]\n") == []
    )
