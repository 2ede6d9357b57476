"""What may be read at any moment: a run's state while its supervisor writes the next one."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from dataclasses import fields, replace
from pathlib import Path

import pytest

from neuro.engines.sandbox import layout, mounts
from neuro.engines.sandbox.ending import Ending, ExitRecord
from tests.disks import fill


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def test_the_newest_state_counts(path: str) -> None:
    layout.add_state(path, {"init": None})
    layout.add_state(path, {"init": [1, 2]})

    assert layout.read_state(path) == {"init": [1, 2]}


def test_a_state_that_was_cut_short_leaves_the_one_before_it(path: str) -> None:
    layout.add_state(path, {"init": None})
    whole = os.path.getsize(path)
    layout.add_state(path, {"init": [1, 2]})

    for size in reversed(range(whole, os.path.getsize(path) - 1)):
        os.truncate(path, size)
        assert layout.read_state(path) == {"init": None}


def test_without_a_file_there_is_no_state(path: str) -> None:
    assert layout.read_state(path) is None


def test_a_state_is_there_while_the_next_one_is_written(path: str) -> None:
    layout.add_state(path, {"number": 0})
    writer = os.fork()
    if writer == 0:
        try:
            for number in range(1, 3000):
                layout.add_state(path, {"number": number})
        finally:
            os._exit(0)
    try:
        assert all(layout.read_state(path) is not None for _ in range(300))
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


RECORD = ExitRecord.of(Ending(0, "completed"), at=1)


@pytest.mark.root
def test_an_exit_record_finds_its_room_on_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)], check=True)
    try:
        (tmp_path / "with").mkdir()
        (tmp_path / "without").mkdir()
        layout.keep_room(str(tmp_path / "with"))
        fill(tmp_path)
        record = replace(RECORD, message="\x1b" * 5000)

        layout.write_exit(str(tmp_path / "with"), record)
        with pytest.raises(OSError, match="No space"):
            layout.write_exit(str(tmp_path / "without"), record)

        kept = layout.read_exit(str(tmp_path / "with"))
        assert kept is not None
        assert str(kept.message).endswith("...")
        assert [path.name for path in (tmp_path / "with").iterdir()] == ["exit"]
        assert layout.read_exit(str(tmp_path / "without")) is None
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_an_exit_record_is_written_without_kept_room_too(tmp_path: Path) -> None:
    layout.write_exit(str(tmp_path), RECORD)
    layout.write_exit(str(tmp_path), replace(RECORD, exit_code=5))

    assert layout.read_exit(str(tmp_path)) == replace(RECORD, exit_code=5)


NAMES = [one.name for one in fields(ExitRecord)]
LATER = "peak_memory"  # which earlier versions did not write


@pytest.mark.parametrize(
    ("damage", "name"),
    [("of another type", name) for name in NAMES]
    + [("missing", name) for name in NAMES if name != LATER],
)
def test_an_exit_record_that_is_damaged_is_none(tmp_path: Path, name: str, damage: str) -> None:
    value = RECORD.as_json()
    if damage == "missing":
        del value[name]
    else:
        value[name] = ["?"]
    (tmp_path / "exit").write_text(json.dumps(value))

    assert layout.read_exit(str(tmp_path)) is None


def test_what_an_earlier_version_did_not_say_damages_no_exit_record(tmp_path: Path) -> None:
    value = RECORD.as_json()
    del value[LATER]
    (tmp_path / "exit").write_text(json.dumps(value))

    assert layout.read_exit(str(tmp_path)) == replace(RECORD, peak_memory=None)


def test_what_a_later_version_says_besides_damages_no_exit_record(tmp_path: Path) -> None:
    (tmp_path / "exit").write_text(json.dumps({**RECORD.as_json(), "more": 1}))

    assert layout.read_exit(str(tmp_path)) == RECORD


def test_an_exit_record_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "exit").symlink_to("exit")

    with pytest.raises(OSError, match="symbolic links"):
        layout.read_exit(str(tmp_path))


def test_a_file_of_a_run_is_whole_or_an_error(path: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            mounts.write_file(path, b"x" * 8192, 0o600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
