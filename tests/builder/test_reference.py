"""Each Dockerfile of the table, built here and by BuildKit: files and layers are the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.builder.faults import BuildFault
from neuro.dockerfile.tree import DockerfileError
from tests.builder import buildkit
from tests.builder.built import build
from tests.builder.table import CASES, Case, write_context

pytestmark = [pytest.mark.slow, pytest.mark.docker, pytest.mark.xdist_group("docker-buildkit")]


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    why = buildkit.lacking()
    if why is not None:
        pytest.skip(why)
    return write_context(tmp_path_factory.mktemp("context"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text[-60:] + case.ignore)
def test_the_reference_makes_the_same(case: Case, context: Path, tmp_path: Path) -> None:
    if case.runs:
        pytest.skip("later")
    try:
        theirs, _ = buildkit.build(case, context, tmp_path)
    except buildkit.Refused as refused:
        with pytest.raises((BuildFault, DockerfileError)):  # noqa: SIM117
            with build(
                case.text,
                context,
                tmp_path,
                ignore=case.ignore,
                target=case.target,
                arguments=case.arguments,
            ):
                print(refused)
        return
    with build(
        case.text,
        context,
        tmp_path,
        ignore=case.ignore,
        target=case.target,
        arguments=case.arguments,
    ) as built:
        assert built.files() == theirs
