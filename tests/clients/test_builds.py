"""Images as the published clients build them: with a job of kaniko's image."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.flow_client import FlowClient
from tests.clients.reference_client import ReferenceClient

PATIENCE = 200.0

LIVE = """\
kind: live
images:
  mine:
    ref: image:{image}:v1
    context: .
    dockerfile: Dockerfile
    build_args: [SAID=hello]
    env: {{UNUSED: "1"}}
jobs:
  idle:
    image: ubuntu
    cmd: sleep 1
"""
DOCKERFILE = "FROM host\nARG SAID\nCOPY a /a\nRUN echo $SAID $(cat /a)\n"


@pytest.fixture(scope="module")
def flow(client: ReferenceClient, named: Callable[[str], str]) -> FlowClient:
    """A project with an image; ``neuro-extras`` is beside ``neuro``, as users have them."""
    made = FlowClient(client, named("built").replace("-", "_"))
    extras = client.home / "bin" / "neuro-extras"
    extras.symlink_to(client.programs.environment / "bin" / "neuro-extras")
    made.workspace.joinpath("Dockerfile").write_text(DOCKERFILE)
    made.workspace.joinpath("a").write_text(named("from"))
    return made


def extras(flow: FlowClient, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(flow.bin / "neuro-extras"), *words],
        env=flow.environment(),
        cwd=flow.workspace,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_an_image_is_built_and_listed(
    flow: FlowClient, client: ReferenceClient, named: Callable[[str], str]
) -> None:
    name = named("made")

    done = extras(flow, "image", "build", "--build-arg", "SAID=1", ".", f"image:{name}:v1")

    assert done.returncode == 0, done.stdout + done.stderr
    assert f" 1 {named('from')}\n" in done.stdout
    assert f"Successfully built image:{name}:v1" in done.stdout + done.stderr
    assert f"image:{name}" in client.run("-q", "image", "ls").out.split()
    again = extras(flow, "image", "build", ".", f"image:{name}:v1")
    assert again.returncode != 0
    assert "exists" in again.stdout + again.stderr


def test_a_build_that_fails_fails_there_too(flow: FlowClient, named: Callable[[str], str]) -> None:
    Path(flow.workspace / "Failing").write_text("FROM host\nRUN exit 3\n")

    done = extras(flow, "image", "build", "-f", "Failing", ".", f"image:{named('failing')}:v1")

    assert done.returncode != 0
    assert "line 2" in done.stdout


def test_their_flow_builds_the_images_of_a_project(
    flow: FlowClient, client: ReferenceClient, named: Callable[[str], str]
) -> None:
    name = named("flow-made")
    flow.write("live", LIVE.format(image=name))

    done = flow.run("build", "mine", patience=PATIENCE)

    assert f" hello {named('from')}\n" in done.out
    assert f"image:{name}" in client.run("-q", "image", "ls").out.split()
