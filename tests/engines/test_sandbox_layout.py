"""What may be read at any moment: a run's state while its supervisor writes the next one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from neuro.engines.sandbox import layout


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
