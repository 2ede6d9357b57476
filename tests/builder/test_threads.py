"""A build on a machine that starts no more threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.builder.built import build


def test_a_thread_that_cannot_be_started_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "cache").mkdir()
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "build":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    with (
        pytest.raises(RuntimeError, match="can't start new thread"),
        build("FROM scratch\nWORKDIR /a\n", tmp_path / "context", tmp_path / "cache"),
    ):
        pass
