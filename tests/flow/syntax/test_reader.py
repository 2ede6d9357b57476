"""What files that are right become."""

from pathlib import Path, PurePosixPath

import pytest

from neuro.domain.problems import Source
from neuro.flow.problems import Report
from neuro.flow.syntax import tree
from neuro.flow.syntax.reader import read_action, read_any, read_batch, read_live
from neuro.flow.syntax.types import (
    ALWAYS,
    BASH,
    BOOL,
    ENABLE,
    INT,
    SCHEDULE_TIMEOUT,
    MapValue,
    Value,
)
from tests.flow.syntax.valid import BATCH, BATCH_ACTION, FILES, LIVE, LIVE_ACTION, LOCAL_ACTION


def source(text: str) -> Source:
    return Source("file.yml", text)


def live(text: str = LIVE) -> tree.LiveFile:
    report = Report()
    file = read_live(source(text), report)
    report.raise_if_any()
    assert file is not None
    return file


def batch(text: str = BATCH) -> tree.BatchFile:
    report = Report()
    file = read_batch(source(text), report)
    report.raise_if_any()
    assert file is not None
    return file


def job(keys: str) -> tree.LiveJob:
    found = live(f"kind: live\njobs:\n  a: {{{keys}}}\n").jobs["a"]
    assert isinstance(found, tree.LiveJob)
    return found


def constants(value: MapValue | None) -> dict[str | None, object]:
    assert value is not None
    return {key: item.constant for key, item in value.parts}


@pytest.mark.parametrize(("kind", "text"), FILES)
def test_any_reads_every_kind(kind: str, text: str) -> None:
    report = Report()
    file = read_any(source(text), report)
    report.raise_if_any()
    wanted = {"live": tree.LiveFile, "batch": tree.BatchFile, "project": tree.ProjectFile}
    assert isinstance(file, wanted.get(kind, tree.ActionFile))


def test_yaml_is_what_existing_files_mean() -> None:
    found = job(
        "env: {A: 1, B: true, C: 0x10, D: 1.50, E: 2020-01-01, F: yes, G: 'yes', H: 010, I: 1e3,"
        " J: 22:22}"
    )
    assert constants(found.env) == {
        "A": "1",
        "B": "True",
        "C": "16",
        "D": "1.5",
        "E": "2020-01-01",
        "F": "True",
        "G": "yes",
        "H": "8",
        "I": "1e3",
        "J": "1342",
    }


def test_arguments_keep_their_types() -> None:
    call = live().jobs["jupyter"]
    assert isinstance(call, tree.Call)
    assert constants(call.args)["port"] == 8888
    assert constants(call.args)["secure"] is True
    assert constants(call.args)["rate"] == 1.5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1d2h3m4s", 93784.0),
        ("30", 30.0),
        ("'30.5'", 30.5),
        ("1:30", 90.0),
        ("0", 0.0),
        ("2h", 7200.0),
    ],
)
def test_time_deltas(text: str, seconds: float) -> None:
    found = job(f"schedule_timeout: {text}").schedule_timeout
    assert found is not None
    assert found.type is SCHEDULE_TIMEOUT
    assert found.constant == seconds


@pytest.mark.parametrize("value", ["1w", "5m1h", "", "d", "-1", "nan", None, True, [], "1.5h"])
def test_what_is_no_time_delta(value: object) -> None:
    with pytest.raises(ValueError, match=r"time delta|not allowed"):
        SCHEDULE_TIMEOUT.convert(value)


def test_conversion_of_what_expressions_give() -> None:
    assert BOOL.convert("true") is True
    assert BOOL.convert("False") is False
    assert BOOL.convert("") is False
    assert BOOL.convert([]) is False
    assert BOOL.convert(2) is True
    assert BOOL.convert(None) is False
    with pytest.raises(ValueError, match="'maybe' is not a bool"):
        BOOL.convert("maybe")
    assert ENABLE.convert(ALWAYS) is ALWAYS
    assert INT.convert(" 12 ") == 12
    with pytest.raises(ValueError, match="None is not allowed"):
        INT.convert(None)
    assert BASH.convert("echo 'a'") == "bash -euo pipefail -c 'echo '\"'\"'a'\"'\"''"


def test_constants_are_converted() -> None:
    file = live()
    code = file.volumes["code"]
    assert code.mount is not None
    assert code.mount.constant == PurePosixPath("/code")
    assert code.local is not None
    assert code.local.constant == Path("code")
    assert code.read_only is not None
    assert code.read_only.constant is True
    train = file.jobs["train"]
    assert isinstance(train, tree.LiveJob)
    assert train.http_port is not None
    assert train.http_port.constant == 8080
    assert train.cmd is not None
    assert train.cmd.type is BASH
    assert train.cmd.template is not None


def test_specified_keys_are_known_null_included() -> None:
    nulls = live().jobs["nulls"]
    assert isinstance(nulls, tree.LiveJob)
    assert nulls.specified == {"image", "volumes", "tags", "env", "params", "mixins", "cmd"}
    assert nulls.volumes is None
    assert nulls.params == {}
    bash = job("bash: x")
    assert bash.specified == {"cmd"}
    assert set(bash.key_at) == {"bash", "cmd"}


def test_null_items_of_volumes_are_dropped() -> None:
    defaults = live().defaults
    assert defaults is not None
    assert defaults.volumes is not None
    assert len(defaults.volumes.parts) == 1


def test_whole_lists_and_mappings_may_be_expressions() -> None:
    train = live().jobs["train"]
    assert isinstance(train, tree.LiveJob)
    assert train.env is not None
    ((key, value),) = train.env.parts
    assert key is None
    assert value.spread
    assert train.volumes is not None
    assert [part.spread for part in train.volumes.parts] == [True]


def test_parameters_have_short_and_long_forms() -> None:
    train = live().jobs["train"]
    assert isinstance(train, tree.LiveJob)
    defaults = {
        name: param.default.constant if param.default is not None else None
        for name, param in train.params.items()
    }
    assert defaults == {"lr": "0.1", "data": None, "long": "x"}


def test_batches_are_read() -> None:
    file = batch()
    prepare, train, only_rows, action, module = file.tasks
    assert isinstance(prepare, tree.Task)
    assert isinstance(train, tree.Task)
    assert isinstance(action, tree.TaskCall)
    assert isinstance(module, tree.TaskCall)
    assert train.enable is not None
    assert train.enable.constant is ALWAYS
    assert train.strategy is not None
    matrix = train.strategy.matrix
    assert matrix is not None
    assert [part.constant for part in matrix.products["x"].parts][:4] == [1, "a", 1.5, True]
    assert matrix.products["y"].parts[0].spread
    assert matrix.exclude[0].values["x"].constant == 1
    assert action.needs is not None
    assert [level for _, level in action.needs.parts] == ["running", "completed"]
    assert file.defaults is not None
    assert file.defaults.cache is not None
    assert file.defaults.cache.strategy == "none"
    assert file.schedule is not None
    assert (file.schedule.catch_up, file.schedule.overlap) == ("all", "cancel")
    assert file.schedule.timezone is not None
    assert file.schedule.timezone.constant == "Europe/Berlin"
    assert isinstance(only_rows, tree.Task)
    assert only_rows.strategy is not None
    assert only_rows.strategy.matrix is not None
    assert [
        {key: value.constant for key, value in row.values.items()}
        for row in only_rows.strategy.matrix.include
    ] == [{"lr": 0.1, "model": "svm"}, {"model": "tree", "lr": 1}]


def test_a_number_of_tries_and_a_group_have_short_forms() -> None:
    short = "kind: batch\nconcurrency: train\ntasks: [{image: x, retry: 3}]\n"
    long = "kind: batch\nconcurrency: {group: train}\ntasks: [{image: x, retry: {attempts: 3}}]\n"
    for text in (short, long):
        file = batch(text)
        (task,) = file.tasks
        assert isinstance(task, tree.Task)
        assert task.retry is not None
        assert task.retry.attempts is not None
        assert (task.retry.attempts.constant, task.retry.specified) == (3, {"attempts"})
        assert file.concurrency is not None
        assert file.concurrency.group is not None
        assert file.concurrency.group.constant == "train"


def test_literal_arguments_and_rows_keep_their_types() -> None:
    file = batch(
        "kind: batch\ntasks:\n- action: ws:x\n  args: {a: 5, b: 1.5, c: true, d: '5', e: text}\n"
    )
    (call,) = file.tasks
    assert isinstance(call, tree.TaskCall)
    assert call.args is not None
    given = [part.constant for _, part in call.args.parts]
    assert given == [5, 1.5, True, "5", "text"]
    assert [type(value) for value in given] == [int, float, bool, str, str]


def test_actions_are_read_by_their_kind() -> None:
    report = Report()
    local = read_action(source(LOCAL_ACTION), report)
    batch_action = read_action(source(BATCH_ACTION), report)
    live_action = read_action(source(LIVE_ACTION), report)
    report.raise_if_any()
    assert isinstance(local, tree.LocalAction)
    assert isinstance(batch_action, tree.BatchAction)
    assert list(batch_action.outputs) == ["result"]
    assert isinstance(live_action, tree.LiveAction)
    inputs = {
        name: (entry.type, entry.default.constant if entry.default else None)
        for name, entry in live_action.inputs.items()
    }
    assert inputs == {
        "a": ("str", None),
        "b": ("str", "x"),
        "c": ("int", 5),
        "d": ("float", 1.5),
        "e": ("bool", False),
        "f": ("str", "short"),
        "g": ("str", None),
    }


def test_what_could_be_read_is_there_beside_the_problems() -> None:
    report = Report()
    file = read_live(
        source("kind: live\njobs:\n  a: {image: x, detach: 'no', tags: [t]}\n"), report
    )
    assert len(report.problems) == 1
    assert file is not None
    found = file.jobs["a"]
    assert isinstance(found, tree.LiveJob)
    assert isinstance(found.image, Value)
    assert found.detach is None
    assert "detach" in found.specified


def test_aliases_stand_for_whole_values() -> None:
    file = live("kind: live\njobs:\n  a: {image: x, env: &e {A: b}}\n  b: {image: x, env: *e}\n")
    one, two = file.jobs["a"], file.jobs["b"]
    assert isinstance(one, tree.LiveJob)
    assert isinstance(two, tree.LiveJob)
    assert constants(one.env) == constants(two.env) == {"A": "b"}
