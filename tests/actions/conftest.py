from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.actions.browser import FileBrowser


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that is shown; its parent has a secret in it."""
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def browser(root: Path) -> Iterator[FileBrowser]:
    with FileBrowser(root) as browser:
        yield browser
