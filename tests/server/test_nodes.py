"""Engines of several nodes: where jobs are put, and what becomes of them when nodes change."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from neuro.client import Client
from neuro.client.installation import server_state
from neuro.domain.jobs import Job, JobStatus, Reason, RestartPolicy
from neuro.domain.resources import GIB, NOTHING, Amount
from neuro.engines.base import Node
from neuro.server.database.engine import Database
from neuro.server.engine_settings import Share
from neuro.server.jobs import life
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord
from tests.engines.memory import MemoryEngine
from tests.server import test_changing_hands as hands
from tests.server.jobs import submit
from tests.server.nodes import node
from tests.server_process import running_server

database = hands.database
GPUS = node("gpus", 2, 2, "0", "1")
PLAIN = node("plain", 2, 2)


def new_job(command: str = "wait", cpu: float = 1, gpu: int = 0, **changes: object) -> JobRecord:
    made = hands.new_job(command)
    amount = Amount(cpu=cpu, memory=GIB // 2, gpu=gpu)
    return replace(made, specification=replace(made.specification, amount=amount, **changes))


class Lab(hands.Server):
    """A server that gives jobs all that its engine has."""

    async def begin(self) -> None:
        await self.take(share=Share())

    async def running(self, job: JobRecord) -> JobRecord:
        self.submit(job)
        return await self.until(job.id, lambda one: one.run_started)

    def says(self, job: JobRecord) -> str | None:
        return self.board.waits_for(self.board.get(job.id) or job)


def where(job: JobRecord) -> tuple[str, tuple[str, ...] | None]:
    return job.node, job.gpus


async def test_a_job_is_put_on_a_node_and_that_is_kept_with_it(database: Database) -> None:
    engine = MemoryEngine(nodes=[GPUS, PLAIN])
    server = Lab(database, sandbox=engine)
    await server.begin()

    jobs = [await server.running(new_job(gpu=gpu)) for gpu in (0, 1, 0)]
    await server.writer.settle()

    expected = [("plain", ()), ("gpus", ("0",)), ("plain", ())]
    assert [where(hands.kept(database, job)) for job in jobs] == expected
    specs = {spec.job_id: (spec.node, spec.gpus) for spec in engine.live}
    assert [specs[job.id] for job in jobs] == expected
    assert jobs[1].transitions[-1].description == "It runs on gpus"
    await server.close()

    again = Lab(database, sandbox=engine)
    await again.begin()
    assert where(await again.running(new_job(gpu=1))) == ("gpus", ("1",))
    assert again.board.lanes["sandbox"].taken.gpu == 2
    await again.close()


async def test_a_node_that_drains_ends_no_job_and_begins_none(database: Database) -> None:
    engine = MemoryEngine(nodes=[PLAIN])
    server = Lab(database, sandbox=engine)
    await server.begin()
    going = await server.running(new_job())

    engine.offer(replace(PLAIN, open=False))
    await hands.eventually(lambda: not server.board.lanes["sandbox"].rooms)
    waits = server.submit(new_job("exit-0"))
    assert server.says(waits) == (
        "Waits for a node with 1 CPU and 0.5 GiB memory: none is that large now"
    )

    engine.offer(replace(PLAIN, open=False), node("joined", 1, 1))
    over = await server.until(waits.id, lambda one: not one.is_active)
    assert (over.status, over.node) == (JobStatus.SUCCEEDED, "joined")
    assert [spec.job_id for spec in engine.live] == [going.id]
    server.reconciler.stop(going, Reason.USER_REQUESTED)
    await server.until(going.id, lambda one: not one.is_active)
    assert server.board.lanes["sandbox"].taken == NOTHING
    await server.close()


@pytest.mark.parametrize("left", [[GPUS, PLAIN], [replace(GPUS, gpus=("1",)), PLAIN], [PLAIN], []])
async def test_a_job_whose_gpu_or_node_goes_away_is_not_ended(
    database: Database, left: Sequence[Node]
) -> None:
    engine = MemoryEngine(nodes=[GPUS])
    server = Lab(database, sandbox=engine)
    await server.begin()
    going = await server.running(new_job(gpu=1))

    engine.offer(*left)
    lane = server.board.lanes["sandbox"]
    await hands.eventually(lambda: [*lane.nodes.values()] == list(left))

    if GPUS.name in [one.name for one in left]:
        assert where(await server.running(new_job(gpu=1))) == ("gpus", ("1",))
    waits = server.submit(new_job(gpu=2))
    if GPUS in left:
        assert server.says(waits) == "Waits for 1 CPU (0 free) and 2 GPUs (0 free)"
    else:
        assert "none is that large now" in (server.says(waits) or "")
    assert going.id in [spec.job_id for spec in engine.live]
    engine.end(next(ref for ref in engine.states if ref.job_id == going.id), 0)
    await server.until(going.id, lambda one: not one.is_active)
    await server.close()


async def test_the_next_run_of_a_job_on_a_node_that_drains_begins_on_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life.endings, "MAX_BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(life, "NO_ROOM_SECONDS", 0.001)
    engine = MemoryEngine(nodes=[GPUS])
    server = Lab(database, sandbox=engine)
    await server.begin()
    job = await server.running(new_job(gpu=1, restart_policy=RestartPolicy.ALWAYS))
    drained = replace(GPUS, open=False)
    engine.offer(drained)
    await hands.eventually(lambda: not server.board.lanes["sandbox"].rooms)

    engine.end(next(iter(engine.states)), 0)
    said = await server.until(job.id, lambda one: "node" in str(one.transitions[-1].description))
    assert (said.phase, said.run) == (Phase.PAUSING, 1)
    assert said.transitions[-1].description == (
        "Its node takes no more runs, and no other node has room for it"
    )
    engine.offer(drained, node("other", 1, 1, "7"))

    moved = await server.until(job.id, lambda one: one.run == 1 and one.run_started)
    await server.writer.settle()
    assert where(moved) == where(hands.kept(database, job)) == ("other", ("7",))
    assert [(spec.run, spec.node) for spec in engine.live] == [(1, "other")]
    assert len(moved.transitions) < 10  # what it waited for was said once
    await server.close()


async def test_what_changed_while_events_were_broken_off_is_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands.background, "PAUSE_SECONDS", 0.0)
    broken = asyncio.Event()

    class Breaking(MemoryEngine):
        async def events(self):  # type: ignore[no-untyped-def]
            async for event in super().events():
                if not broken.is_set():
                    broken.set()
                    self._events.clear()
                    raise ConnectionResetError("the stream of events broke off")
                yield event

    engine = Breaking(nodes=[])
    server = Lab(database, sandbox=engine)
    await server.begin()
    job = server.submit(new_job("exit-0"))

    engine.offer(PLAIN)

    over = await server.until(job.id, lambda one: not one.is_active)
    assert broken.is_set()
    assert over.status is JobStatus.SUCCEEDED
    await server.close()


SETTINGS = """
[engines.lab]
kind = "memory"
nodes = "{nodes}"
[[presets]]
name = "cpu"
cpu = 1
memory = "512M"
engine = "lab"
[[presets]]
name = "gpu"
cpu = 1
memory = "512M"
gpu = 1
engine = "lab"
"""
PROGRAM = (str(Path(__file__).parents[1] / "servers" / "main.py"),)


async def status(client: Client, job: Job, wanted: JobStatus) -> Job:
    """The job once it is so."""
    async with asyncio.timeout(30):
        while (found := await client.jobs.get(job.id)).status is not wanted:
            await asyncio.sleep(0.01)
    return found


async def test_nodes_come_and_go_below_a_real_server(tmp_path: Path) -> None:
    file = tmp_path / "nodes.json"

    def have(*nodes: Node) -> None:
        file.write_bytes(msgspec.json.encode(nodes))

    have(GPUS, PLAIN)
    with running_server(
        tmp_path / "data", settings=SETTINGS.format(nodes=file), program=PROGRAM
    ) as server:
        async with Client.connect(server.url, server.token) as client:
            assert await client.jobs.capacity() == {"cpu": 4, "gpu": 2}
            going = await submit(client, "sleep 1000", preset_name="gpu")
            assert (await status(client, going, JobStatus.RUNNING)).history.description == (
                "It runs on gpus"
            )

            have(PLAIN)
            os.kill(server.pid, signal.SIGUSR1)
            async with asyncio.timeout(30):
                while await client.jobs.capacity() != {"cpu": 2, "gpu": 0}:
                    await asyncio.sleep(0.01)
            waits = await submit(client, "true", preset_name="gpu")
            found = await client.jobs.get(waits.id)
            assert (found.status, found.history.description) == (
                JobStatus.PENDING,
                "Waits for a node with 1 CPU, 0.5 GiB memory and 1 GPU: none is that large now",
            )
            assert (await client.jobs.get(going.id)).status is JobStatus.RUNNING

            (lab,) = [one for one in (await server_state(client)).engines if one.name == "lab"]
            assert lab.capacity == PLAIN.amount

            have(PLAIN, node("new", 1, 1, "gpu-7"))
            os.kill(server.pid, signal.SIGUSR1)
            await status(client, waits, JobStatus.SUCCEEDED)
            assert (await client.jobs.get(going.id)).status is JobStatus.RUNNING
            await client.jobs.kill(going.id)
            await status(client, going, JobStatus.CANCELLED)
