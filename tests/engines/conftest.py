"""Fixtures of the engine tests: every test of the contract runs on every engine that can do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.engines.harness import KINDS, EngineKind, Runs

CONTRACT = Path(__file__).parent / "contract"
# On some kinds, which take ten times as long or differ little from others, only these parts of the
# contract run, unless the tests of their mark are asked for by its name.
PARTS = {
    "docker": ("docker", {"test_lifecycle.py"}),
    "podman": ("podman", {"test_lifecycle.py"}),
    # Where an image makes a difference to runs of the sandbox.
    "image": ("images", {"test_private_files.py", "test_sessions.py", "test_terminal.py"}),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test of the contract have each kind that has what it needs, others the sandbox."""
    if "kind" not in metafunc.fixturenames:
        return
    marks = metafunc.definition.iter_markers("needs")
    needed = [what for mark in marks for what in mark.args]
    of_contract = metafunc.definition.path.is_relative_to(CONTRACT)
    kinds = KINDS.values() if of_contract else [KINDS["sandbox"]]
    able = [kind for kind in kinds if all(kind.can(what) for what in needed)]
    assert able, f"no engine has what {metafunc.definition.name} needs"
    path = metafunc.definition.path
    names: list[Any] = [kind.name for kind in able if kind.name not in PARTS]
    for name, (mark, files) in PARTS.items():
        wanted = path.name in files or metafunc.config.option.markexpr == mark
        if KINDS[name] in able and wanted:
            names.append(pytest.param(name, marks=getattr(pytest.mark, mark)))
    metafunc.parametrize("kind", names, indirect=True)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """Each kind of engine in turn."""
    chosen = KINDS[request.param]
    chosen.prepare()
    return chosen


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
    async with AsyncExitStack() as stack:
        stack.callback(kind.end_all, folder)
        stack.push_async_callback(opened.close)
        stack.push_async_callback(opened.stop_all)
        yield opened
