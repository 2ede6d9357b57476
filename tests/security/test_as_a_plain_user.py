"""What is tried against a root server is tried against a plain user's."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.engines.plain_user import as_plain_user, prepare


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_attacks_fail_as_a_plain_user() -> None:
    place = Path(tempfile.mkdtemp(prefix="neuro-user-"))
    try:
        python = prepare(place)
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not root"]
        tests = [*command, "tests/security", "--deselect", "tests/security/test_document.py"]

        done = as_plain_user(tests, place, NEURO_FUZZ_CASES="60")

        assert done.returncode == 0, done.stdout[-20_000:]
        assert " passed" in done.stdout
    finally:
        shutil.rmtree(place, ignore_errors=True)
