"""Each bundled action as a person uses it: a project, `neuro-flow run`, the page of a real job."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import neuro.actions
from neuro.cli.server.options import DEFAULT_PORT
from neuro.client import Client
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Job, JobFilter, JobStatus
from tests.cli.platform import Home

NEURO_FLOW = [sys.executable, "-m", "neuro.flow"]
PATIENCE = 240.0

PROJECT = """
kind: live
volumes:
  project:
    remote: storage:demo
    mount: /project
jobs:
  jupyter:
    action: neuro:jupyter@v1
    args:
      volumes_project: ${{ volumes.project.ref_rw }}
  open_jupyter:
    action: neuro:jupyter@v1
    args:
      http_auth: ${{ False }}
      volumes_project: ${{ volumes.project.ref_rw }}
  tensorboard:
    action: neuro:tensorboard@v1
    args:
      volumes_results: ${{ volumes.project.ref_ro }}
  filebrowser:
    action: neuro:filebrowser@v1
    args:
      volumes_project: ${{ volumes.project.ref_rw }}
      name: our-files
  debug_shell:
    action: neuro:remote_debug@v1
    args:
      volumes_project: ${{ volumes.project.ref_rw }}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A person with a running platform and a project whose folder is on the storage."""
    person = Home(tmp_path_factory.mktemp("actions") / "home")
    project = person.work_dir / ".neuro"
    project.mkdir()
    (project / "live.yml").write_text(PROJECT)
    person.ok("up", "--port", "0")
    person.ok("mkdir", "-p", "storage:demo")
    yield person
    if jobs := person.ok("-q", "ps").split():
        person.run("kill", *jobs)
    person.ok("down")


@pytest.fixture
async def client(person: Home) -> AsyncIterator[Client]:
    login = json.loads((person.data_dir / "run" / "owner.json").read_text())
    async with Client.connect(login["url"], login["token"]) as client:
        yield client


async def started(person: Home, client: Client, job_id: str) -> Job:
    """The job that `neuro-flow run` starts."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*NEURO_FLOW, "run", job_id],
        env=person.environment(BROWSER="true"),
        cwd=person.work_dir,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tag = f"job:{job_id.replace('_', '-')}"
    (job,) = [job async for job in client.jobs.list(JobFilter(tag=[tag]))]
    return job


async def page(client: Client, job: Job, port: int, path: str = "/") -> str:
    """What the job's server answers, once there is one."""
    return (
        await talk(client, job, port, f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    ).decode()


async def talk(client: Client, job: Job, port: int, request: bytes) -> bytes:
    """All that is answered to a request. Nothing tells when a job's port opens, so this asks."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = b""
        try:
            async with client.jobs.port_forward(job.id, port) as connection:
                await connection.send(request)
                while (data := await connection.receive()) is not None:
                    answer += data
        except PlatformError:
            pass
        if answer:
            return answer
        now = await client.jobs.get(job.id)
        assert not now.status.is_finished, await output(client, job)
        await asyncio.sleep(0.02)
    raise AssertionError("the page never came")


async def output(client: Client, job: Job) -> str:
    return b"".join([chunk async for chunk in client.jobs.logs(job.id)]).decode()


async def until_said(client: Client, job: Job, text: str) -> str:
    """The job's output up to ``text``."""
    shown = ""
    async for chunk in client.jobs.logs(job.id):
        shown += chunk.decode()
        if text in shown:
            return shown
    raise AssertionError(f"{text!r} was never said; said: {shown}")


async def ended(client: Client, job: Job) -> Job:
    await client.jobs.kill(job.id)
    await output(client, job)
    return await client.jobs.get(job.id)


LOOPBACK = ("0100007F", "00000000000000000000000001000000")  # as the kernel writes them


def listens_inside_alone(person: Home, job: Job, port: int) -> bool:
    """Whether the job listens on a port, and on nothing but its loopback."""
    said = person.ok("exec", "--no-tty", job.id, "cat /proc/net/tcp /proc/net/tcp6")
    rows = [line.split() for line in said.splitlines()]
    listening = {tuple(row[1].split(":")) for row in rows if row[3] == "0A"}
    return (LOOPBACK[0], f"{port:04X}") in listening and all(
        address in LOOPBACK for address, _ in listening
    )


async def test_jupyter(person: Home, client: Client) -> None:
    job = await started(person, client, "jupyter")

    refused = await page(client, job, 8888, "/api/contents")
    said = await until_said(client, job, "To access the server")
    token = re.findall(r"token=(\w+)\s", said)[0]
    lab = await page(client, job, 8888, f"/lab?token={token}")
    saved = await page(client, job, 8888, f"/api/contents?token={token}")

    assert refused.startswith("HTTP/1.1 403")
    assert lab.startswith("HTTP/1.1 200")
    assert "JupyterLab" in lab
    assert saved.startswith("HTTP/1.1 200")
    assert f"neuro port-forward {job.id} 8888:8888" in said
    assert listens_inside_alone(person, job, 8888)
    assert job.container.http is not None
    assert job.container.http.requires_auth
    assert job.name == "work-jupyter"
    assert "notebooks" in person.ok("ls", "storage:demo")
    await ended(client, job)


async def test_jupyter_for_everybody(person: Home, client: Client) -> None:
    # It is not waited for: it would be installed again, and differs in nothing else.
    job = await started(person, client, "open_jupyter")

    assert job.container.http is not None
    assert not job.container.http.requires_auth
    assert job.name == "work-open-jupyter"
    await ended(client, job)


async def test_tensorboard(person: Home, client: Client) -> None:
    job = await started(person, client, "tensorboard")

    shown = await page(client, job, 6006)

    assert " 200 " in shown.partition("\r\n")[0]
    assert "<title>TensorBoard</title>" in shown
    assert (await page(client, job, 6006, "/data/runs")).endswith("[]")
    await until_said(client, job, f"neuro port-forward {job.id} 6006:6006")
    assert listens_inside_alone(person, job, 6006)
    await ended(client, job)


async def test_filebrowser(person: Home, client: Client) -> None:
    (person.work_dir / "hello.txt").write_text("hello")
    person.ok("cp", "hello.txt", "storage:demo/hello.txt")
    job = await started(person, client, "filebrowser")

    shown = await page(client, job, 8095)
    upload = b"PUT /up.txt HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nup"
    uploaded = await talk(client, job, 8095, upload)

    assert "./hello.txt" in shown
    await until_said(client, job, f"neuro port-forward {job.id} 8095:8095")
    assert listens_inside_alone(person, job, 8095)
    assert b" 201 " in uploaded
    assert "up.txt" in person.ok("ls", "storage:demo")
    assert job.name == "our-files"
    await ended(client, job)


async def test_a_shell_in_a_job_for_debugging(person: Home, client: Client) -> None:
    job = await started(person, client, "debug_shell")

    said = await until_said(client, job, "--wait-for-client PROGRAM")
    version = person.ok("exec", "--no-tty", job.id, "python3 -c 'import debugpy; print(1 + 1)'")

    assert f"neuro exec {job.id} bash" in said
    assert "2" in version.split()
    assert (await ended(client, job)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("path", sorted(Path("src/neuro/actions").glob("*.yml")), ids=str)
def test_the_files_are_sound(path: Path) -> None:
    from neuro.domain.problems import Source
    from neuro.flow.problems import Report
    from neuro.flow.syntax.reader import read_action

    report = Report()
    action = read_action(Source(str(path), path.read_text()), report)

    assert not report.problems
    assert action is not None
    assert all(one.default is not None and one.descr for one in action.inputs.values())


def test_no_bundled_job_listens_where_the_server_does() -> None:
    for path in sorted(Path(neuro.actions.__file__).parent.glob("*.yml")):
        assert str(DEFAULT_PORT) not in path.read_text("utf-8"), path
