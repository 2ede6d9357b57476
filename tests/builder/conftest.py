from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.sandbox import SandboxEngine
from tests.builder import inside
from tests.builder.table import Case, write_context
from tests.engines.harness import EVERYWHERE, MIB, Runs, mounted, put_into_storage

BuildAll = Callable[[list[Case]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The context of the table."""
    made = write_context(tmp_path_factory.mktemp("context"))
    put_into_storage(made)
    return made


@pytest.fixture(scope="module")
def build_all(context: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildAll:
    """Builds Dockerfiles in one job of the sandbox; they share a cache."""
    folder = tmp_path_factory.mktemp("engine")

    async def build(cases: list[Case]) -> list[dict[str, Any]]:
        engine = SandboxEngine(folder, storage=EVERYWHERE)
        await engine.open()
        await engine.adopt([])
        runs = Runs(engine)
        try:
            done = await runs.run(
                *inside.command(),
                nesting=True,
                build_cache="ada",
                image="neuro/builder",
                memory=1024 * MIB,
                env=inside.environment(cases),
                volumes=(
                    mounted(source=context, target="/context"),
                    mounted(source=inside.TESTS, target=inside.PLACE),
                ),
                patience=300.0,
            )
        finally:
            await runs.stop_all()
            await runs.close()
        found = inside.results(done.output)
        assert len(found) == len(cases), done.output.decode("utf-8", "replace")
        return found

    return lambda cases: asyncio.run(build(cases))
