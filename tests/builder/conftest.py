from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neuro.engines.sandbox import SandboxEngine
from tests.builder import inside
from tests.builder.table import write_context
from tests.engines.harness import EVERYWHERE, MIB, Runs, mounted, put_into_storage

# A copy of the interpreter finds its libraries so (``tests.engines.plain_user``).
_LIBRARIES = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
InJob = Callable[[str, dict[str, str]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The context of the table."""
    made = write_context(tmp_path_factory.mktemp("context"))
    put_into_storage(made)
    return made


@pytest.fixture(scope="module")
def in_job(context: Path, tmp_path_factory: pytest.TempPathFactory) -> InJob:
    """Runs a function of ``inside`` in a job of the sandbox that may nest, with a kept cache."""
    folder = tmp_path_factory.mktemp("engine")

    async def run(function: str, env: dict[str, str]) -> list[dict[str, Any]]:
        engine = SandboxEngine(folder, storage=EVERYWHERE)
        await engine.open()
        await engine.adopt([])
        runs = Runs(engine)
        try:
            done = await runs.run(
                *inside.command(function),
                nesting=True,
                build_cache="ada",
                image="neuro/builder",
                memory=1024 * MIB,
                env={**_LIBRARIES, **env},
                volumes=(
                    mounted(source=context, target="/context", read_only=False),
                    mounted(source=inside.TESTS, target=inside.PLACE),
                ),
                patience=300.0,
            )
        finally:
            await runs.stop_all()
            await runs.close()
        assert done.code == 0, done.output.decode("utf-8", "replace")
        return inside.results(done.output)

    return lambda function, env: asyncio.run(run(function, env))
