"""The image that is the platform itself, and the jobs in it that drive bakes."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from neuro import __version__
from neuro.client import Client
from neuro.domain.images import EXECUTOR_IMAGE, is_executor_image
from neuro.domain.jobs import (
    Container,
    JobRequest,
    JobStatus,
    Priority,
    Reason,
    Resources,
    Volume,
)
from neuro.domain.names import new_job_id
from neuro.domain.resources import GIB, MIB, NOTHING, Amount
from neuro.server.jobs.board import Board
from neuro.server.jobs.lane import Allotment
from neuro.server.jobs.old_clients import is_main_job
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord, Specification
from neuro.server.jobs.specification import CONTROL_AMOUNT
from tests.server.jobs import finished, output_of, running, submit
from tests.server.nodes import one_node
from tests.server_process import running_server

ONLY_SQLITE = "What is in the image is the machine's, and a request tells which jobs drive bakes."

THEIRS = "ghcr.io/neuro-inc/neuro-flow:22.8.1"


@pytest.mark.parametrize("image", [EXECUTOR_IMAGE, THEIRS])
async def test_the_platforms_own_command_is_in_it(client: Client, image: str) -> None:
    job = await submit(client, "neuro-flow --version", image=image)

    assert await output_of(client, job) == b"neuro-flow package version: %s\n" % (
        __version__.encode()
    )
    assert (await client.jobs.get(job.id)).preset_name == "cpu-small"


async def test_its_commands_come_first_whatever_the_path(client: Client) -> None:
    env = {"PATH": "/usr/bin:/bin"}

    job = await submit(client, "sh -c 'command -v neuro-flow'", image=EXECUTOR_IMAGE, env=env)

    assert await output_of(client, job) == f"{sys.prefix}/bin/neuro-flow\n".encode()


async def test_the_environment_of_all_other_images_is_left_as_it_is(client: Client) -> None:
    job = await submit(client, "sh -c 'echo $PATH'", env={"PATH": "/usr/bin:/bin"})

    assert await output_of(client, job) == b"/usr/bin:/bin\n"


async def test_a_passed_login_reaches_the_platform_as_the_caller(client: Client) -> None:
    # The mount's odd name is what published clients make of their option for the log's life.
    volume = {
        "src_storage_uri": f"storage://default/{client.user}/.flow/logs/bake-1/",
        "dst_path": "/root/.neuro/logs--life-span=7d",
        "read_only": False,
    }
    options = {"image": THEIRS, "pass_config": True, "volumes": [volume]}
    script = "neuro -q ps && test -w /root/.neuro/logs--life-span=7d"

    job = await submit(client, f"sh -c '{script}'", **options)
    output = (await output_of(client, job)).decode()

    assert job.id in output.split()
    assert (await client.jobs.get(job.id)).status is JobStatus.SUCCEEDED


async def test_a_control_job_starts_where_all_is_taken(client: Client) -> None:
    holding = await running(client, "sleep 1000", preset_name="cpu-large")
    waiting = await submit(client, "true", preset_name="cpu-large")
    free = await client.jobs.capacity()

    command = "neuro-flow --fake-workspace execute --help"
    control = await submit(client, command, image=THEIRS, preset_name="cpu-large")
    other = await submit(client, "neuro-flow ps", image=THEIRS, preset_name="cpu-large")
    await finished(client, control)

    assert (await client.jobs.get(control.id)).history.started_at is not None
    assert (await client.jobs.get(waiting.id)).status is JobStatus.PENDING
    assert (await client.jobs.get(other.id)).status is JobStatus.PENDING
    assert await client.jobs.capacity() == free
    resources = control.container.resources
    assert (resources.cpu, resources.memory) == (1, 512 * MIB)
    for job in (waiting, other, holding):
        await client.jobs.kill(job.id)
        await finished(client, job)


@pytest.fixture(params=[0o755, 0o700], ids=["open", "closed"])
def folder_of_the_environment(request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=sys.prefix))
    folder.chmod(request.param)
    yield folder
    shutil.rmtree(folder)


async def test_the_data_folder_stays_hidden_inside_the_environment(
    folder_of_the_environment: Path,
) -> None:
    data = folder_of_the_environment / "data"
    with running_server(data) as server:
        async with Client.connect(server.url, server.token) as client:
            script = f"ls -A {data} 2>/dev/null; neuro-flow --version"
            job = await submit(client, f"sh -c '{script}'", image=EXECUTOR_IMAGE)
            output = await output_of(client, job)

    assert output.decode().splitlines() == [f"neuro-flow package version: {__version__}"]


# The rules alone.


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("neuro/executor", True),
        ("neuro/executor:latest", True),
        ("ghcr.io/neuro-inc/neuro-flow", True),
        ("ghcr.io/neuro-inc/neuro-flow:22.8.1", True),
        ("localhost:5000/neuro-flow", True),
        ("localhost:5000/team/neuro-flow:1@sha256:" + "0" * 64, True),
        ("neuro-flow", True),
        ("ubuntu", False),
        ("neuro/executor2", False),
        ("registry/neuro/executor", False),
        ("my-neuro-flow", False),
        ("neuro-flow/worker", False),
    ],
)
def test_which_images_are_the_platform_itself(image: str, expected: bool) -> None:
    assert is_executor_image(image) is expected


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("neuro-flow execute bake-1", True),
        ("neuro-flow --fake-workspace execute bake-1", True),
        ("neuro-flow -vv --fake-workspace execute bake-1", True),
        ("neuro-flow --config execute ps", False),
        ("neuro-flow --config /x --color no execute bake-1", True),
        ("neuro-flow --config=/x execute bake-1", True),
        ("neuro-flow --version", False),
        ("neuro-flow", False),
        ("neuro-flow ps execute", False),
        ("sh -c 'neuro-flow execute bake-1'", False),
        ("", False),
    ],
)
def test_which_commands_drive_a_bake(command: str, expected: bool) -> None:
    assert is_main_job(JobRequest(image=THEIRS, command=command)) is expected


def test_the_same_command_in_any_other_image_is_a_job_like_all() -> None:
    request = JobRequest(image="ubuntu", command="neuro-flow execute bake-1")

    assert not is_main_job(request)


def test_with_files_or_an_environment_of_its_own_it_is_a_job_like_all() -> None:
    def given(path: str, **env: str) -> JobRequest:
        volume = Volume(src_storage_uri="storage:x", dst_path=path)
        command = "neuro-flow execute 1"
        return JobRequest(image=THEIRS, command=command, volumes=[volume], env=env)

    assert is_main_job(given("/root/.neuro/logs"))
    assert is_main_job(given("/root/.neuro/logs--life-span=7d"))
    assert not is_main_job(given("/root/.neuro"))
    assert not is_main_job(given("/root/.neuro/logs-x"))
    assert not is_main_job(given("/root/.neuro/logs/l/neuro-flow"))
    assert not is_main_job(given("/root/.neuro/logs/"))
    assert not is_main_job(given("/root/.neuro/logs--life-span=7d/bin"))
    assert not is_main_job(given("/code"))
    assert not is_main_job(given("/root/.neuro/logs", PYTHONPATH="/root/.neuro/logs"))


def test_two_volumes_make_it_a_job_like_all() -> None:
    volumes = [
        Volume(src_storage_uri="storage:x", dst_path=path)
        for path in ("/root/.neuro/logs", "/root/.apolo/logs")
    ]

    assert not is_main_job(
        JobRequest(image=THEIRS, command="neuro-flow execute 1", volumes=volumes)
    )


def test_an_entrypoint_counts_as_the_beginning_of_the_command() -> None:
    assert is_main_job(JobRequest(image=THEIRS, entrypoint="neuro-flow", command="execute 1"))


def record(
    *, control: bool, placed: bool = False, number: int = 0, owner: str = "alice"
) -> JobRecord:
    resources = Resources(cpu=1, memory=GIB, memory_mb=1024, shm=False)
    now = datetime.now(UTC)
    made = JobRecord(
        id=new_job_id(),
        owner=owner,
        name=None,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=now,
        phase=Phase.STARTING if placed else Phase.WAITING,
        sequence=number,
        specification=Specification(
            container=Container(image=THEIRS, resources=resources),
            amount=CONTROL_AMOUNT,
            control=control,
        ),
    )
    return made.stepped(Reason.CREATING, now)


def test_many_control_jobs_start_at_once_on_a_full_board() -> None:
    board = Board({"sandbox": one_node(Amount(cpu=1, memory=GIB))})
    holding = record(control=False, placed=True)
    waiting = record(control=False, number=1)
    controls = [record(control=True, number=number) for number in (2, 3, 4)]
    for job in (holding, waiting, *controls):
        board.add(job)

    chosen = board.choose("sandbox")

    assert chosen == [(job.id, Allotment()) for job in controls]
    assert board.lanes["sandbox"].taken == CONTROL_AMOUNT  # the other's, who asked for as much
    assert board.choose("sandbox") == []


def test_a_control_job_gives_back_nothing() -> None:
    board = Board({"sandbox": one_node(Amount(cpu=1, memory=GIB))})
    adopted, ended_early = record(control=True, placed=True), record(control=True)
    for job in (adopted, ended_early):
        board.add(job)
    assert len(list(board.controls())) == 2

    for job in (adopted, ended_early, adopted):
        board.remove(job)

    assert board.lanes["sandbox"].taken == NOTHING
    assert (list(board.controls()), board.choose("sandbox")) == ([], [])
