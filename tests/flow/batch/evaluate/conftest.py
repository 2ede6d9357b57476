"""A workspace for batches."""

import pytest

from tests.flow.batch.evaluate.batches import Place


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    root = tmp_path / "my_ws"
    (root / ".neuro").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("NEURO_FLOW_GITHUB", raising=False)
    return Place(root, tmp_path / "cache")
