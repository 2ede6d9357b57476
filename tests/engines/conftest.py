"""Fixtures of the engine tests: every test of the contract runs on every engine that can do it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from neuro.engines.base import Engine
from tests.engines.harness import KINDS, EngineKind, Runs, emptied, opened

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let all tests of kinds have one event loop in a module, which its engine is in.

    So the engine goes on while a test has another one.
    """
    for item in items:
        if "kind" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """Each kind of engine in turn."""
    chosen = KINDS[request.param]
    chosen.prepare()
    return chosen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of an engine of the test's own, not there yet."""
    return tmp_path / "engine"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modules_engine(
    kind: EngineKind, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Engine, Path]]:
    """An open engine for all tests of a module, and its folder."""
    place = tmp_path_factory.mktemp("shared") / "engine"
    async with opened(kind, place) as engine:
        yield engine, place


@pytest_asyncio.fixture(loop_scope="module")
async def runs(kind: EngineKind, modules_engine: tuple[Engine, Path]) -> AsyncIterator[Runs]:
    """An open engine without runs, which its module's tests have one after the other.

    What a test started is stopped and removed at its end, and nothing of it may be left.
    """
    engine, place = modules_engine
    async with emptied(engine, kind, place) as begun:
        yield begun


@pytest_asyncio.fixture(loop_scope="module")
async def own_runs(kind: EngineKind, folder: Path) -> AsyncIterator[Runs]:
    """The same on ``folder``: for a test that looks into it, or does something to the engine."""
    async with opened(kind, folder) as engine, emptied(engine, kind, folder) as begun:
        yield begun
