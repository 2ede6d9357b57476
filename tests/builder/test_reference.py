"""Each Dockerfile of the table, built in a job here and by BuildKit: the files are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.builder import buildkit
from tests.builder.conftest import InJob
from tests.builder.table import BUSYBOX, CASES, OURS_ALONE, Case

pytestmark = [
    pytest.mark.slow,
    pytest.mark.docker,
    pytest.mark.xdist_group("docker-buildkit"),
    pytest.mark.timeout(600),
]
_COMPARED = [case for case in CASES if case.text not in OURS_ALONE]


@pytest.fixture(scope="module")
def ours(in_job: InJob) -> list[dict[str, Any]]:
    """What came of all Dockerfiles here."""
    why = buildkit.lacking()
    if why is None and BUSYBOX is None:
        why = "needs a static busybox (apt: busybox-static)"
    if why is not None:
        pytest.skip(why)
    return in_job("table", {"CASES": json.dumps([case._asdict() for case in _COMPARED])})


@pytest.mark.parametrize(
    ("number", "case"),
    enumerate(_COMPARED),
    ids=[f"{case.text[-60:]} {case.ignore}" for case in _COMPARED],
)
def test_the_reference_makes_the_same(
    number: int, case: Case, ours: list[dict[str, Any]], context: Path, tmp_path: Path
) -> None:
    try:
        theirs = buildkit.build(case, context, tmp_path)
    except buildkit.Newer:
        pytest.skip("its Dockerfile syntax is older than ours")
    except buildkit.Refused as refused:
        assert "error" in ours[number], refused
        return

    assert ours[number].get("files") == json.loads(json.dumps(theirs)), ours[number]
