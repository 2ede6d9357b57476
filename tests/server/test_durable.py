"""Small files that are whole, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.server import durable


def test_a_file_is_replaced_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "id", tmp_path / "elsewhere"
    elsewhere.write_text("not ours")
    path.symlink_to(elsewhere)

    for text in ("one", "two"):
        durable.write(path, text)

        assert path.read_text() == f"{text}\n"
        assert oct(path.lstat().st_mode) == "0o100600"
    assert elsewhere.read_text() == "not ours"
    assert sorted(tmp_path.iterdir()) == [elsewhere, path]


def test_nothing_stays_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "id"
    path.mkdir()

    for text in ("one", "\u2713"):
        with pytest.raises((OSError, UnicodeEncodeError)):
            durable.write(path, text)

    assert list(tmp_path.iterdir()) == [path]
