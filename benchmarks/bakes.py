"""Bakes: what a task costs, flat and in a chain, beside other pipelines; planning; waiting."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.flow import neuro_flow_command
from benchmarks.harness import Result, cpu_seconds, logged_in, mb, ms, resident, seconds, server
from benchmarks.pipelines import Peer, PeerFailed, chosen
from neuro.client import Client
from neuro.domain.bakes import Bake, BakeFilter
from neuro.domain.jobs import JobFilter
from tests.server_process import ServerProcess

TASKS = 200
WATCHED_SECONDS = 20.0


def run() -> Iterator[Result]:
    """All of it; ``BENCH_PEERS`` names the peers to run, all of them if it names none."""
    peers = chosen(os.environ.get("BENCH_PEERS", ""))
    with tempfile.TemporaryDirectory() as folder:
        yield from _plan(Path(folder) / "layers")
        with server() as running:
            project = _project(Path(folder) / "bench")
            env = logged_in(running, Path(folder))
            yield from _tasks(peers, project, env, Path(folder))
            yield from _hand_over(running)
            yield from _waiting(running, project, env)


def _project(folder: Path) -> Path:
    config = folder / ".neuro"
    config.mkdir(parents=True)
    (config / "flat.yml").write_text(flat(TASKS))
    (config / "chain.yml").write_text(chain(TASKS))
    (config / "wait.yml").write_text(
        "kind: batch\ntasks:\n- id: wait\n  image: ubuntu\n  preset: bench\n  cmd: sleep 1000\n"
    )
    return folder


def flat(tasks: int) -> str:
    """A batch of tasks that need nothing."""
    head = "kind: batch\ndefaults:\n  preset: bench\n  cache:\n    strategy: none\ntasks:\n"
    return head + "".join(
        f"- id: t{number}\n  needs: []\n  image: ubuntu\n  cmd: 'true'\n" for number in range(tasks)
    )


def chain(tasks: int) -> str:
    """A batch of tasks that each need the one before."""
    head = "kind: batch\ndefaults:\n  preset: bench\n  cache:\n    strategy: none\ntasks:\n"
    return head + "".join(
        f"- id: t{number}\n  image: ubuntu\n  cmd: 'true'\n" for number in range(tasks)
    )


def _tasks(
    peers: Sequence[Peer], project: Path, env: dict[str, str], folder: Path
) -> Iterator[Result]:
    """Whole runs, in turn with each peer's: from the command to the last task's end."""
    ready: list[Peer] = []
    for peer in peers:
        try:
            peer.prepare(folder)
        except PeerFailed as error:
            yield Result(f"tasks of `true` in {peer}", "failed", note=str(error))
        else:
            ready.append(peer)
    for shape in ("flat", "chain"):
        yield from _shape(shape, ready, project, env, folder)


def _shape(
    shape: str, peers: Sequence[Peer], project: Path, env: dict[str, str], folder: Path
) -> Iterator[Result]:
    def ours() -> None:
        command = [*neuro_flow_command(), "bake", shape]
        subprocess.run(command, cwd=project, env=env, stdout=subprocess.DEVNULL, check=True)

    ours()
    times: list[float] = []
    pairs: dict[Peer, list[tuple[float, float]]] = {peer: [] for peer in peers}
    failed: dict[Peer, PeerFailed] = {}
    for number in range(max((peer.rounds for peer in peers), default=0)):
        for peer in peers:
            if number < peer.rounds and peer not in failed:
                mine = seconds(ours)
                times.append(mine)
                try:
                    pairs[peer].append((mine, peer.seconds(shape, TASKS, folder)))
                except PeerFailed as error:
                    failed[peer] = error
    # There is a figure even where no peer could be had.
    times = times or [seconds(ours)]
    what = f"{TASKS} tasks of `true`, {shape}, whole"
    yield Result(
        f"{what} bake, a task",
        ms(statistics.median(times) / TASKS),
        "≤ 20 ms",
        _runs(len(times)),
    )
    for peer in peers:
        name = str(peer) if shape == "flat" else peer.name
        if peer in failed:
            yield Result(f"{what} run of {name}", "failed", note=str(failed[peer]))
            continue
        ratio = statistics.median(mine / theirs for mine, theirs in pairs[peer])
        yield Result(
            f"{what} run of {name}, a task",
            ms(statistics.median(theirs for _, theirs in pairs[peer]) / TASKS),
            note=f"{_runs(len(pairs[peer]))}; a bake takes {ratio:.2f} × its time",
        )


def _runs(count: int) -> str:
    return f"median of {count} runs" if count > 1 else "one run"


def _hand_over(running: ServerProcess) -> Iterator[Result]:
    """In the chain: from the end of one task's job to the start of the next one's."""
    pauses = asyncio.run(_pauses(running))
    yield Result(
        "end of a task → its dependent starts, median",
        ms(statistics.median(pauses)),
        "≤ 30 ms",
        f"90 %: {ms(statistics.quantiles(pauses, n=10)[-1])}",
    )


async def _pauses(running: ServerProcess) -> list[float]:
    async with Client.connect(running.url, running.token) as client:
        bake = await _last_bake(client, "chain")
        tag = f"bake_id:{bake.id}"
        found = client.jobs.list(JobFilter(tag=[tag]))
        jobs = [job async for job in found if "remote_executor" not in job.tags]
    times = sorted(
        (job.history.started_at.timestamp(), job.history.finished_at.timestamp())
        for job in jobs
        if job.history.started_at and job.history.finished_at
    )
    return [after[0] - before[1] for before, after in itertools.pairwise(times)]


async def _last_bake(client: Client, batch: str) -> Bake:
    project = await client.flows.project_by_name("bench")
    assert project is not None
    query = BakeFilter(project_id=project.id, reverse=True, fetch_last_attempt=True)
    return next(bake for bake in await client.bakes.list(query) if bake.batch == batch)


def _waiting(running: ServerProcess, project: Path, env: dict[str, str]) -> Iterator[Result]:
    command = [*neuro_flow_command(), "-q", "bake", "--detach", "wait"]
    subprocess.run(command, cwd=project, env=env, stdout=subprocess.DEVNULL, check=True)
    bake_id = asyncio.run(_once_running(running))
    pid = _process_of(bake_id)
    before, started = cpu_seconds(pid), time.monotonic()
    time.sleep(WATCHED_SECONDS)
    share = (cpu_seconds(pid) - before) / (time.monotonic() - started)
    yield Result("an executor that waits: CPU", f"{share:.2%} of a core", "≤ 1 %")
    yield Result("an executor that waits: resident", mb(resident(pid)), "≤ 63 MB (60 MiB)")
    subprocess.run([*neuro_flow_command(), "cancel", bake_id], cwd=project, env=env, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


async def _once_running(running: ServerProcess) -> str:
    async with Client.connect(running.url, running.token) as client:
        bake = await _last_bake(client, "wait")
        async for event in client.bakes.events(bake.id):
            if event.task is not None and event.task.status == "running":
                break
    return bake.id


def _process_of(bake_id: str) -> int:
    """The Python process of a bake's main job: the newest with the id on its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if bake_id.encode() in words and b"python" in words[0].rpartition(b"/")[2]:
                    found.append(int(entry.name))
    return max(found)


_PLAN = """
import json, resource, sys, time
from pathlib import Path
from neuro.flow.batch.plan import make_plan
from neuro.flow.evaluate.environment import Environment
from neuro.flow.workspace import find_workspace
folder = Path(sys.argv[1])
workspace = find_workspace(folder)
environment = Environment(user="anna", cwd=folder, cache_dir=folder / "cache")
started = time.perf_counter()
plan = make_plan(workspace, "layers", {}, environment)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
json.dump([len(plan.nodes), seconds, peak], sys.stdout)
"""


def _plan(folder: Path) -> Iterator[Result]:
    (folder / ".neuro").mkdir(parents=True)
    (folder / ".neuro" / "layers.yml").write_text(layers(20, 250))
    command = [sys.executable, "-c", _PLAN, str(folder)]
    runs = [json.loads(subprocess.check_output(command)) for _ in range(3)]
    count = runs[0][0]
    took = statistics.median(run[1] for run in runs)
    peak = statistics.median(run[2] for run in runs)
    yield Result(f"a graph of {count:,} tasks in 20 layers, planned", ms(took), "≤ 2 s")
    yield Result("the same: memory of the whole process", mb(peak), "≤ 210 MB (200 MiB)")


def layers(count: int, rows: int) -> str:
    """A batch of layers; each row of one needs all of the layer before."""
    head = "kind: batch\ntasks:\n"
    numbers = ", ".join(str(number) for number in range(rows))
    task = (
        "- id: layer_{layer}\n{needs}  strategy:\n    matrix:\n      row: [{numbers}]\n"
        "  image: ubuntu\n  env:\n    ROW: ${{{{ matrix.row }}}}\n"
        "  bash: echo {layer} ${{{{ matrix.row }}}}\n"
    )
    return head + "".join(
        task.format(
            layer=layer,
            needs=f"  needs: [layer_{layer - 1}]\n" if layer else "",
            numbers=numbers,
        )
        for layer in range(count)
    )
