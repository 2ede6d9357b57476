from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.project import Project
from tests.server_process import SETTINGS, running_server


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project on a server that ends jobs without much ado."""
    settings = SETTINGS.replace("stop_grace_seconds = 2", "stop_grace_seconds = 0.2")
    with running_server(tmp_path / "data", settings=settings) as server:
        yield Project(server, tmp_path)
