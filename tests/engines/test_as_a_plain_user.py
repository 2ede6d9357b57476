"""Everything that holds for root holds for a user without rights."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.engines.plain_user import as_plain_user, prepare


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_engine_suite_passes_as_a_plain_user() -> None:
    place = Path(tempfile.mkdtemp(prefix="neuro-user-"))
    try:
        python = prepare(place)

        # The tests' own engines know no rights, nor do pure tests: they have been tried already.
        chosen = ["-m", "not root and not pure", "-k", "not [plain and not [memory"]
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
        builder = [f"tests/builder/test_{name}.py" for name in ("in_a_job", "reference")]
        done = as_plain_user([*command, "tests/engines", *builder], place)

        assert done.returncode == 0, done.stdout[-20_000:]
        assert " passed" in done.stdout
    finally:
        shutil.rmtree(place, ignore_errors=True)
