"""Each Dockerfile of the table, built in a job here and by BuildKit: the image is the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.builder import buildkit, record
from tests.builder.conftest import InJob
from tests.builder.record import Made, Record
from tests.builder.table import BUSYBOX, CASES, COMMANDS, COMPARED, Case, write_context

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(BUSYBOX is None, reason="needs a static busybox (apt: busybox-static)"),
]
_PLACES = ("dev", "proc", "sys")
_IDS = [f"{case.text[-60:]} {case.ignore}" for case in COMPARED]
_ANEW = "run `make reference`"


@pytest.fixture(scope="module")
def ours(in_job: InJob) -> dict[str, dict[str, Any]]:
    """What came of all Dockerfiles here, by what they are."""
    # Of a plain user's only the commands are looked at.
    cases = CASES if os.geteuid() == 0 else [Case(text) for text in COMMANDS]
    found = in_job("table", {"CASES": json.dumps([case._asdict() for case in cases])})
    return {repr(case): one for case, one in zip(cases, found, strict=True)}


@pytest.fixture(scope="module")
def known() -> Record:
    return record.load()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a context for a BuildKit that is at hand."""
    why = buildkit.lacking()
    if why is not None:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("reference")
    (folder / "context").mkdir()
    write_context(folder / "context")
    return folder


@pytest.mark.root  # a plain user's files have one owner
@pytest.mark.parametrize("case", COMPARED, ids=_IDS)
def test_the_reference_made_the_same(
    case: Case, ours: dict[str, dict[str, Any]], known: Record, context: Path
) -> None:
    theirs = known.of(case)
    assert theirs is not None, f"BuildKit was never asked: {_ANEW}"
    built = ours[repr(case)]

    if theirs.is_error:
        assert "error" in built
    else:
        assert "error" not in built, built
        one = record.made(built["files"], built["config"], record.contents(context))
        assert one.files == _files(theirs, case)
        assert one.config == theirs.config


def _files(theirs: Made, case: Case) -> dict[str, str]:
    """What it made, without what it leaves of its own mounts where an image has no such place."""
    if not case.runs:
        return theirs.files
    return {path: one for path, one in theirs.files.items() if path not in _PLACES}


def test_the_record_is_of_this_table(known: Record) -> None:
    assert known.forgotten() == [], _ANEW


@pytest.mark.root
@pytest.mark.docker
@pytest.mark.timeout(3600)
def test_the_record_is_what_the_reference_makes(known: Record, asked: Path) -> None:
    wrong = {}
    for case in COMPARED:
        now = record.asked(case, asked / "context", asked)
        if now is not None and now != known.of(case):
            wrong[case] = now

    assert wrong == {}, _ANEW


def test_commands_leave_what_they_should(ours: dict[str, dict[str, Any]]) -> None:
    wrong = []
    for text, wanted in COMMANDS.items():
        one = ours[repr(Case(text))]
        if "chown" in text and os.geteuid() != 0:
            continue  # nobody can give files away there
        if isinstance(wanted, str):
            if wanted not in one.get("error", ""):
                wrong.append((text, wanted, one))
            continue
        found = {path: one.get("files", {}).get(path) for path in wanted}
        shown = {path: entry and [*entry[1:3]] for path, entry in found.items()}
        if shown != wanted:
            wrong.append((text, wanted, shown if "files" in one else one))
    assert not wrong, "\n".join(map(str, wrong))
