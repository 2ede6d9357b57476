"""The registry is one by the word of those who wrote the specification."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.server.registry.conformance import CannotBuild, program, run
from tests.server_process import ServerProcess

CHECKS = 800  # about; fewer were not all of them


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    try:
        program()
    except CannotBuild as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("version", ["1.1", "dev"])
def test_each_check_of_the_conformance_program_passes(
    server: ServerProcess, tmp_path: Path, version: str
) -> None:
    repositories = (f"{server.user}/one", f"{server.user}/two/deep")

    made, failed, said = run(
        version,
        address=server.url.removesuffix("/api/v1"),
        repositories=repositories,
        token=server.token,
        results=tmp_path,
    )

    assert not failed, said[-5000:]
    assert made > CHECKS
