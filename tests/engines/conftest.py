"""Fixtures of the engine tests: every test of the contract runs on every kind of engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.engines.harness import KINDS, EngineKind, Runs


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """Each kind of engine in turn."""
    return KINDS[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The engine's own folder, not there yet."""
    return tmp_path / "engine"


@pytest_asyncio.fixture
async def runs(kind: EngineKind, folder: Path) -> AsyncIterator[Runs]:
    """An open engine without runs. At its end whatever still runs is stopped and removed."""
    engine = kind.make(folder)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()
