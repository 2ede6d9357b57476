"""What `/metrics` tells."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator

import pytest

from neuro.client import Client
from tests.server.jobs import finished, submit
from tests.server_process import ServerProcess, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


def told(server: ServerProcess) -> str:
    with urllib.request.urlopen(server.url.removesuffix("/api/v1") + "/metrics") as answer:
        text: str = answer.read().decode()
        return text


async def test_jobs_are_counted_by_how_they_end_and_how_long_they_wait(
    server: ServerProcess,
) -> None:
    async with Client.connect(server.url, server.token) as client:
        await finished(client, await submit(client, "true"))
        await finished(client, await submit(client, "sh -c 'exit 3'"))

    lines = told(server).splitlines()

    assert 'neuro_jobs_finished_total{reason="Completed",status="succeeded"} 1.0' in lines
    assert 'neuro_jobs_finished_total{reason="Error",status="failed"} 1.0' in lines
    for name in ("neuro_job_waiting_seconds", "neuro_job_start_seconds"):
        count = sum(float(line.split()[1]) for line in lines if line.startswith(f"{name}_count"))
        assert count == 2
    assert 'neuro_engine_capacity_cpu_cores{engine="sandbox"} 64.0' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)


async def test_labels_are_names_of_routes(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        await client.storage.mkdir("storage:here", parents=True)

    assert r"\s" not in told(server)
    assert 'route="/api/v1/storage{path}"' in told(server)


def labels_of(line: str) -> str:
    """The labels of a sample, less the bound of a bucket."""
    return re.sub(r'le="[^"]*",?', "", line.partition("{")[2].partition("}")[0])


async def test_metrics_are_in_the_order_of_their_names_and_labels(server: ServerProcess) -> None:
    async with Client.connect(server.url, server.token) as client:
        await client.storage.mkdir("storage:order", parents=True)  # later than what sorts after it
        await finished(client, await submit(client, "true"))

    lines = told(server).splitlines()

    names = [line.split()[2].removesuffix("_total") for line in lines if line.startswith("# HELP")]
    families = [name for name in names if not name.endswith("_created")]
    assert families == sorted(families)
    routes = [labels_of(line) for line in lines if line.startswith("neuro_http_requests_total{")]
    assert routes == sorted(routes)
    bounds = [
        float(line.partition('le="')[2].partition('"')[0])
        for line in lines
        if line.startswith("neuro_job_start_seconds_bucket{")
    ]
    assert bounds == sorted(bounds)


async def test_no_help_goes_on_from_another(server: ServerProcess) -> None:
    for line in told(server).splitlines():
        if line.startswith("# HELP neuro_"):
            text = line.split(maxsplit=3)[3]
            assert "then" not in text.split(), line
