"""What somebody takes away under a running server is made again, and no job ends for it."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.domain.jobs import JobStatus
from tests.engines.harness import eventually
from tests.server.jobs import finished, output_of, submit
from tests.server_process import ServerProcess, running_server

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


def installation(server: ServerProcess) -> dict[str, str]:
    path = server.data_dir / "engines/sandbox/installation"
    found: dict[str, str] = json.loads(path.read_text())
    return found


def take_groups(server: ServerProcess) -> None:
    name = f"neuro-{installation(server)['id']}"
    for base in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
        for group in [*base.iterdir()]:
            if group.is_dir():
                for pid in (group / "cgroup.procs").read_text().split():
                    subprocess.run(["kill", "-9", pid], check=False)
    subprocess.run(
        f"until rmdir /sys/fs/cgroup/*/{name}/*/ /sys/fs/cgroup/*/{name} 2>/dev/null;"
        f' [ -z "$(ls -d /sys/fs/cgroup/*/{name} 2>/dev/null)" ]; do sleep 0.05; done',
        shell=True,
        check=True,
        timeout=30,
    )


def remove(folder: Path) -> None:
    """Moved aside first: the engine goes on making and removing what lies in it."""
    aside = folder.with_name(f"{folder.name}-taken")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def take_berths(server: ServerProcess) -> None:
    remove(server.data_dir / "engines/sandbox/berths")


def take_land(server: ServerProcess) -> None:
    remove(server.data_dir / "engines/sandbox/land")


@pytest.mark.parametrize("take", [take_groups, take_berths, take_land])
async def test_jobs_start_all_the_same(
    server: ServerProcess, take: Callable[[ServerProcess], None]
) -> None:
    async with Client.connect(server.url, server.token) as client:
        await finished(client, await submit(client, "true"))  # from now on berths wait

        take(server)

        jobs = [await submit(client, f"echo {number}") for number in range(4)]
        for number, job in enumerate(jobs):
            assert await output_of(client, job) == f"{number}\n".encode()
            assert (await client.jobs.get(job.id)).status is JobStatus.SUCCEEDED


def rules(server: ServerProcess) -> str:
    return f"neuro_{installation(server)['id']}"


def test_the_fence_of_the_network_is_put_up_again(server: ServerProcess) -> None:
    nft = shutil.which("nft")
    assert nft is not None
    name = rules(server)
    subprocess.run([nft, "delete", "table", "inet", name], check=True)

    def is_there() -> bool:
        done = subprocess.run([nft, "list", "table", "inet", name], capture_output=True)
        return done.returncode == 0

    asyncio.run(eventually(is_there, "the rules are not made again"))


def test_what_says_where_the_server_is_comes_back(server: ServerProcess) -> None:
    run = server.data_dir / "run"
    before = {name: (run / name).read_bytes() for name in ("server.json", "owner.json")}
    remove(run)

    def is_back() -> bool:
        return all((run / name).exists() for name in before) and not _is_free(run / "lock")

    asyncio.run(eventually(is_back, "the files are not there again"))
    assert {name: (run / name).read_bytes() for name in before} == before


def _is_free(lock: Path) -> bool:
    done = subprocess.run(["flock", "--nonblock", str(lock), "true"], check=False)
    return done.returncode == 0


def ready(server: ServerProcess) -> str | None:
    """None where it is, else what it says."""
    root = server.url.removesuffix("/api/v1")
    try:
        urllib.request.urlopen(f"{root}/ready").close()
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["error"])
    return None


def put_a_file_in_place_of(folder: Path) -> None:
    """So that nothing can be made there. The engine may make the folder anew meanwhile."""
    for number in itertools.count():
        folder.rename(folder.with_name(f"taken-{number}"))
        try:
            folder.touch(exist_ok=False)
            return
        except FileExistsError:
            continue


async def test_what_cannot_be_made_again_is_told_and_the_job_waits(server: ServerProcess) -> None:
    berths = server.data_dir / "engines/sandbox/berths"
    async with Client.connect(server.url, server.token) as client:
        assert ready(server) is None
        put_a_file_in_place_of(berths)

        job = await submit(client, "echo late")
        killed = await submit(client, "echo never")
        while not ((await client.jobs.get(job.id)).history.description or "").startswith("The ser"):
            await asyncio.sleep(0.05)
        await eventually(lambda: ready(server) is not None, "it says that it is ready")
        await client.jobs.kill(killed.id)
        assert (await finished(client, killed)).status is JobStatus.CANCELLED

        berths.unlink()
        assert await output_of(client, job) == b"late\n"
        await eventually(lambda: ready(server) is None, "it is not ready again")
