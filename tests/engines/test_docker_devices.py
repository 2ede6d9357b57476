"""GPUs by the Container Device Interface: other devices stand in for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.base import NotReady
from neuro.engines.docker.api import Daemon
from tests.engines import docker_daemon
from tests.engines.harness import KINDS, PATIENCE, Runs, spec

_DESCRIBED = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {
            "name": number,
            "containerEdits": {
                "deviceNodes": [{"path": f"/dev/nvidia{number}", "hostPath": source}],
                "env": [f"GPU={number}"],
            },
        }
        for number, source in (("0", "/dev/zero"), ("1", "/dev/null"))
    ],
}
_PODMAN = (5, 4)


@pytest.fixture(
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("podman", marks=pytest.mark.podman),
    ]
)
def which(request: pytest.FixtureRequest) -> str:
    """Each kind of daemon that gives devices so."""
    daemon = Daemon(docker_daemon.socket_path(request.param))
    info = daemon.info()
    knows = bool(info.device_folders)
    if request.param == "podman":
        knows = tuple(map(int, info.server_version.split(".")[:2])) >= _PODMAN
    if not knows:
        pytest.skip(f"{request.param} {info.server_version} knows no such devices")
    return str(request.param)


@pytest.fixture
def description(which: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this machine's GPUs are described; it is not there yet."""
    folder = docker_daemon.devices_folder(which)
    monkeypatch.setattr("neuro.engines.docker.cdi.USUAL", (str(folder),))
    monkeypatch.setattr("neuro.engines.docker.engine._LOOK_SECONDS", 0.02)
    monkeypatch.setattr("neuro.engines.docker.engine._LOOKS", 1)
    path = folder / "gpus.json"
    yield path
    path.unlink(missing_ok=True)


@pytest_asyncio.fixture
async def runs(which: str, folder: Path, description: Path) -> AsyncIterator[Runs]:
    engine = KINDS[which].make(folder)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


async def test_a_job_has_the_gpus_that_it_was_given_as_they_come_and_go(
    runs: Runs, description: Path
) -> None:
    (node,) = await runs.engine.nodes()
    assert node.gpus == ()

    description.write_text(json.dumps(_DESCRIBED))
    await nodes_change(runs)
    (node,) = await runs.engine.nodes()
    done = await runs.shell("echo $GPU; ls /dev | grep nvidia", gpus=("1",))

    assert node.gpus == ("0", "1")
    assert (done.lines, done.exited.message) == (["1", "nvidia1"], None)

    description.unlink()
    await nodes_change(runs)
    with pytest.raises(NotReady, match="the GPU 1 is not there"):
        await runs.engine.start(spec("true", gpus=("1",)))


async def nodes_change(runs: Runs) -> None:
    async with asyncio.timeout(PATIENCE):
        await runs.nodes_changed.wait()
    runs.nodes_changed.clear()
