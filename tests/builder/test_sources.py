from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from neuro.builder import files
from neuro.builder.faults import BuildFault
from neuro.builder.program import run
from neuro.builder.sources import ANYWHERE, Sources
from neuro.builder.views import LayerFolder, View


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A volume in which somebody has put links that lead out of it."""
    shared, builders = tmp_path / "shared", tmp_path / "builders"
    shared.mkdir()
    builders.mkdir()
    (builders / "config.json").write_text("a token")
    (shared / "Dockerfile").write_text("FROM scratch\n")
    (shared / "app").mkdir()
    (shared / "app" / "Dockerfile").symlink_to(builders / "config.json")
    (shared / "app" / ".dockerignore").symlink_to(builders / "config.json")
    (shared / "same").symlink_to("Dockerfile")
    (shared / "out").symlink_to(builders)
    return shared


@pytest.mark.parametrize(
    "context",
    [
        *("/", "/kaniko", "/kaniko/.docker", "/kaniko/x/../.docker", "/cache", "/cache/images"),
        *("/proc/self", "/run/nesting/2/neuro/data", "/usr", "/etc", "/kanikos", "/home"),
    ],
)
def test_a_context_is_in_a_volume(context: str) -> None:
    out = io.StringIO()
    words = [f"--context={context}", "--no-push"]

    assert run(words, {"NEURO_JOB_ID": "job"}, out, "/nowhere") == 1
    assert out.getvalue().startswith(f"ERROR: {context} is in no volume of the job.")


@pytest.mark.parametrize(
    "path", ["/workspace", "/workspace/a", "/kaniko_context", "/kaniko/context", "/data/a"]
)
def test_the_volumes_are_where_files_are_taken_from(path: str) -> None:
    assert Sources(("/data",)).real(path) == path


def test_a_link_out_of_a_volume_is_refused(shared: Path) -> None:
    sources = Sources((str(shared),))

    assert files.context_folder(str(shared), sources) == str(shared)
    assert files.find_dockerfile(str(shared), "same", sources) == str(shared / "same")
    for name in ("out/config.json", "app/Dockerfile", "../builders/config.json"):
        with pytest.raises(BuildFault, match="in no volume"):
            files.dockerfile(str(shared), name, sources)
    with pytest.raises(BuildFault, match="in no volume"):
        files.context_folder(str(shared / "out"), sources)
    with pytest.raises(BuildFault, match="in no volume"):
        files.context(str(shared / "app"), str(shared / "Dockerfile"), sources)
    with pytest.raises(BuildFault, match="in no volume"):
        sources.open(str(shared / "out" / "config.json"))
    os.close(ANYWHERE.open(str(shared / "out" / "config.json")))


def test_a_context_that_became_a_link_is_not_followed(shared: Path) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        View((LayerFolder(str(shared / "out")),))
