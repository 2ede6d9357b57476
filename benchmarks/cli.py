"""The command line as whole processes, beside the original's."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import (
    Result,
    command_seconds,
    logged_in,
    ms,
    neuro_command,
    paired_seconds,
    server,
)
from benchmarks.peers import reference_client
from neuro.client import Client
from neuro.domain.jobs import JobRequest

RUNS = 15


def run() -> Iterator[Result]:
    """All of it."""
    help_times = command_seconds([*neuro_command(), "--help"], dict(os.environ), RUNS)
    yield Result("`neuro --help`, whole process", ms(statistics.median(help_times)), "≤ 100 ms")
    with server() as running, tempfile.TemporaryDirectory() as folder:
        env = logged_in(running, Path(folder))
        asyncio.run(_hundred_jobs(running.url, running.token))

        def ours() -> None:
            subprocess.run([*neuro_command(), "ps"], env=env, stdout=subprocess.DEVNULL, check=True)

        with reference_client(running) as theirs_run:
            mine, theirs, ratio = paired_seconds(ours, lambda: theirs_run("ps"), RUNS)
    yield Result("`neuro ps` with 100 jobs, whole process", ms(mine), "≤ 250 ms")
    yield Result("… beside neuro-cli 22.7.1, paired", f"{ratio:.2f}", "≤ 0.35",
                 f"neuro-cli: {ms(theirs)}")  # fmt: skip


async def _hundred_jobs(url: str, token: str) -> None:
    async with Client.connect(url, token) as client:
        for _ in range(100):
            await client.jobs.submit(
                JobRequest(image="ubuntu:latest", command="sleep 10000", preset_name="large")
            )
