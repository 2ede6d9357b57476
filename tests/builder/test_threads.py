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
    _refuse(monkeypatch)

    with (
        pytest.raises(RuntimeError, match="can't start new thread"),
        build("FROM scratch\nWORKDIR /a\n", tmp_path / "context", tmp_path / "cache"),
    ):
        pass


def test_what_was_built_before_needs_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, cache, text = tmp_path / "context", tmp_path / "cache", "FROM scratch\nWORKDIR /a\n"
    for folder in (context, cache):
        folder.mkdir()
    with build(text, context, cache):
        pass
    _refuse(monkeypatch)

    with build(text, context, cache) as again:
        assert "CACHED" in again.output


def _refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no step have a thread."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "build":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
