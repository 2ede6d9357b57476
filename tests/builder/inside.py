"""Builds several Dockerfiles in one job, which may nest: its program, and what tests get of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from neuro.engines.sandbox.probing import PACKAGE_ROOT
from tests.builder.table import Case

_MARK = "result: "
TESTS, PLACE = Path(__file__).parents[1], "/given/tests"


def command() -> list[str]:
    """What the job executes."""
    code = (
        f"import sys; sys.path[:0] = ['/given', {PACKAGE_ROOT!r}];"
        "from tests.builder.inside import main; main()"
    )
    return [sys.executable, "-c", code]


def environment(cases: list[Case]) -> dict[str, str]:
    """What tells the job what to build."""
    return {"CASES": json.dumps([case._asdict() for case in cases])}


def results(output: bytes) -> list[dict[str, Any]]:
    """What came of each: ``files``, ``output`` and ``error``."""
    lines = output.decode("utf-8", "replace").splitlines()
    return [json.loads(line.removeprefix(_MARK)) for line in lines if line.startswith(_MARK)]


def main() -> None:
    from neuro.builder.faults import BuildFault
    from neuro.dockerfile.tree import DockerfileError
    from tests.builder.built import build

    for words in json.loads(os.environ["CASES"]):
        case = Case(**words)
        found: dict[str, Any] = {}
        try:
            with build(
                case.text,
                Path("/context"),
                Path("/cache"),
                ignore=case.ignore,
                target=case.target,
                arguments=case.arguments,
            ) as built:
                found = {"files": built.files(), "output": built.output}
        except (BuildFault, DockerfileError) as error:
            found = {"error": str(error)}
        print(_MARK + json.dumps(found), flush=True)
