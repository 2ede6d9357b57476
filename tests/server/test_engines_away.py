"""Engines that are away when a server starts, or go away later: only their own jobs wait."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest
import structlog

from neuro.client import Client
from neuro.client.installation import server_state
from neuro.domain.jobs import Job, JobStatus, Reason
from neuro.domain.resources import NOTHING, Amount
from neuro.engines.base import EngineFault, NotReady, RunRef
from neuro.server.database.engine import Database
from neuro.server.jobs import arrivals, life
from neuro.server.jobs.arrivals import Arrivals
from neuro.server.jobs.lane import Lane
from neuro.server.jobs.phases import Phase
from tests.cli.platform import Home
from tests.engines.memory import MemoryEngine
from tests.server import test_changing_hands as hands
from tests.server.jobs import submit
from tests.server.test_nodes import PROGRAM, status
from tests.server_process import ServerProcess, running_server

database = hands.database
SETTINGS = """
stop_grace_seconds = 1
[[presets]]
name = "here"
cpu = 0.1
memory = "64M"
[[presets]]
name = "gpu"
cpu = 1
memory = "256M"
engine = "gpu"
[engines.gpu]
kind = "memory"
away = "{away}"
"""
WHY = "The engine 'gpu' is away: nobody has started it"


def ready(server: ServerProcess) -> dict[str, object]:
    """What it says of itself. Raises HTTPError where that is not 200."""
    with urllib.request.urlopen(server.url.replace("/api/v1", "/ready")) as response:
        answer: dict[str, object] = json.load(response)
        return answer


async def configuration(home: Home) -> tuple[object, str]:
    """What `neuro config show` says of engines that are away: to programs, and to people."""
    told = await asyncio.to_thread(home.run, "config", "show", "--json")
    return json.loads(told.stdout)["away"], told.stderr


async def said(client: Client, job: Job, sentence: str) -> None:
    """Return once a pending job says so."""
    async with asyncio.timeout(30):
        while (found := await client.jobs.get(job.id)).history.description != sentence:
            assert found.status is JobStatus.PENDING
            await asyncio.sleep(0.01)


async def test_a_server_starts_without_an_engine_whose_jobs_wait_until_it_is_there(
    tmp_path: Path,
) -> None:
    file = tmp_path / "away"
    file.write_text("nobody has started it")
    settings = SETTINGS.format(away=file)
    with running_server(tmp_path / "data", settings=settings, program=PROGRAM) as server:
        async with Client.connect(server.url, server.token) as client:
            assert ready(server) == {"status": "ready", "details": [f"{WHY}."]}
            assert "an engine is away, and is tried again" in server.log()
            home = Home(tmp_path / "home")
            home.ok("config", "login-with-token", server.token, server.url)
            engines = {one.name: one for one in (await server_state(client)).engines}
            remark = f"{WHY}. Its jobs wait, and start when it is there."
            assert engines["gpu"].notices == [remark]
            assert await configuration(home) == (
                {"gpu": remark},
                f"WARNING: {remark}\n",
            )
            waits = await submit(client, "true", preset_name="gpu")
            killed = await submit(client, "true", preset_name="gpu")
            assert waits.history.description == WHY
            assert (await client.jobs.capacity())["gpu"] == 0
            here = await submit(client, "true", preset_name="here")
            await status(client, here, JobStatus.SUCCEEDED)

            assert not await client.jobs.kill(killed.id)
            assert (await client.jobs.get(killed.id)).status is JobStatus.CANCELLED
            server.kill()
            server.start()
            await said(client, waits, WHY)

            file.unlink()
            await status(client, waits, JobStatus.SUCCEEDED)
            assert ready(server) == {"status": "ready"}
            assert await configuration(home) == ({}, "")
            assert "an engine is there" in server.log()


async def test_an_engine_whose_jobs_could_not_find_the_server_is_away(tmp_path: Path) -> None:
    settings = SETTINGS.format(away="") + 'host_address = "192.0.2.1"\n'
    with running_server(tmp_path / "data", settings=settings, program=PROGRAM) as server:
        async with Client.connect(server.url, server.token) as client:
            (why,) = ready(server)["details"]  # type: ignore[misc]
            assert why.startswith("The engine 'gpu' is away: Cannot listen on 192.0.2.1:")
            assert why.endswith(" forward the port to it.")
            waits = await submit(client, "true", preset_name="gpu")
            await said(client, waits, why.removesuffix("."))
            here = await submit(client, "true", preset_name="here")
            await status(client, here, JobStatus.SUCCEEDED)
            await client.jobs.kill(waits.id)


async def test_an_engine_that_goes_away_begins_nothing_until_it_is_back(tmp_path: Path) -> None:
    file = tmp_path / "away"
    settings = SETTINGS.format(away=file)
    with running_server(tmp_path / "data", settings=settings, program=PROGRAM) as server:
        async with Client.connect(server.url, server.token) as client:
            going = await submit(client, "sleep 1000", preset_name="gpu")
            await status(client, going, JobStatus.RUNNING)

            file.write_text("nobody has started it")
            os.kill(server.pid, signal.SIGUSR1)
            async with asyncio.timeout(30):
                while "details" not in ready(server):
                    await asyncio.sleep(0.01)
            waits = await submit(client, "true", preset_name="gpu")
            await said(client, waits, WHY)
            assert (await client.jobs.get(going.id)).status is JobStatus.RUNNING
            await client.jobs.kill(going.id)
            await status(client, going, JobStatus.CANCELLED)

            file.unlink()
            os.kill(server.pid, signal.SIGUSR1)
            await status(client, waits, JobStatus.SUCCEEDED)


async def test_runs_that_go_on_while_the_engine_is_away_are_found_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "STOP_AGAIN_SECONDS", 0.001)
    engine = MemoryEngine()
    server = hands.Server(database, sandbox=engine)
    await server.take()
    jobs = {name: server.submit(hands.new_job("wait")) for name in ("goes on", "ended", "killed")}
    for job in jobs.values():
        await server.until(job.id, lambda one: one.run_started)
    await server.writer.settle()
    await server.close()

    engine.end(RunRef(jobs["ended"].id), 3)
    again = hands.Server(database, sandbox=engine)
    await again.take(away="The engine 'sandbox' is away: no reason")
    new = again.submit(hands.new_job("exit-0"))
    assert again.board.get(new.id) is not None
    assert again.board.waits_for(new) == "The engine 'sandbox' is away: no reason"
    dropped = again.submit(hands.new_job("exit-0"))
    for job in (jobs["killed"], dropped):
        again.reconciler.stop(job, Reason.USER_REQUESTED)
    await hands.eventually(lambda: hands.kept(database, dropped).status is JobStatus.CANCELLED)
    killed = jobs["killed"].id
    await hands.eventually(lambda: (job := again.board.get(killed)) is not None and job.stops > 2)
    assert [job.phase for job in again.board if job.id == killed] == [Phase.STOPPING]
    assert len(engine.live) == 2
    assert again.board.lanes["sandbox"].taken.cpu == 3

    await again.reconciler.meet("sandbox", [RunRef(job.id) for job in jobs.values()])

    await hands.eventually(lambda: hands.kept(database, jobs["ended"]).exit_code == 3)
    await hands.eventually(lambda: hands.kept(database, new).status is JobStatus.SUCCEEDED)
    await hands.eventually(
        lambda: hands.kept(database, jobs["killed"]).status is JobStatus.CANCELLED
    )
    assert [spec.job_id for spec in engine.live] == [jobs["goes on"].id]
    assert set(engine.begun.values()) == {1}
    await again.close()


def test_an_engine_with_a_queue_of_its_own_is_handed_nothing_while_it_is_away() -> None:
    lane = Lane((), delegated=True)
    lane.away = WHY

    assert lane.find(Amount(cpu=1, memory=1)) is None
    assert lane.choose() == []
    assert lane.explain(Amount(cpu=1, memory=1), 0) == WHY
    assert lane.free == NOTHING


class Shy(MemoryEngine):
    """One that can be opened, and says what it has, once it is told to."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error
        self.opened = self.closed = 0

    async def open(self) -> None:
        if self.error is not None:
            raise self.error
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("error", [NotReady("why"), EngineFault("why"), OSError(2, "why")])
async def test_only_the_embedded_engine_has_to_be_there(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "FIRST_PAUSE_SECONDS", 0.001)
    embedded, other = Shy(None), Shy(error)
    engines = Arrivals({"sandbox": embedded, "gpu": other}, "sandbox")  # type: ignore[dict-item]
    tries, came = [NotReady("it went away again"), None], asyncio.Event()

    async def take(name: str) -> None:
        assert name == "gpu"
        if (trouble := tries.pop(0)) is not None:
            raise trouble
        came.set()

    with structlog.testing.capture_logs() as logged:
        await engines.open()
    assert engines.away == {"gpu": "The engine 'gpu' is away: why"}
    assert [line["engine"] for line in logged] == ["gpu"]
    engines.begin(take)
    other.error = None
    async with asyncio.timeout(30):
        await came.wait()

    assert engines.away == {}
    assert (embedded.opened, other.opened) == (1, 1)
    await engines.close()
    assert (embedded.closed, other.closed) == (1, 1)


async def test_the_embedded_engine_that_cannot_be_opened_is_the_end_of_the_start() -> None:
    broken, other = Shy(EngineFault("no user namespaces")), Shy(None)
    engines = Arrivals({"sandbox": broken, "gpu": other}, "sandbox")  # type: ignore[dict-item]

    with pytest.raises(EngineFault, match="no user namespaces"):
        await engines.open()

    await engines.close()
    assert (broken.closed, other.closed) == (0, 1)


async def test_the_pauses_between_tries_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 8:
            other.error = None

    monkeypatch.setattr(arrivals.asyncio, "sleep", sleep)
    other, came = Shy(NotReady("why")), asyncio.Event()
    engines = Arrivals({"gpu": other}, "sandbox")  # type: ignore[dict-item]

    async def take(name: str) -> None:
        came.set()

    await engines.open()
    engines.begin(take)
    await came.wait()

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    await engines.close()


class OddEngine(MemoryEngine):
    """It answers what nobody expects, ``odd`` times."""

    def __init__(self, odd: int) -> None:
        super().__init__()
        self.odd = odd
        self.tries = 0

    async def open(self) -> None:
        self.tries += 1
        if self.tries <= self.odd:
            raise ValueError("no JSON")
        await super().open()


async def test_an_odd_answer_of_one_engine_does_not_stop_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "FIRST_PAUSE_SECONDS", 0.0)
    odd = OddEngine(2)
    coming = Arrivals({"here": MemoryEngine(), "odd": odd}, "here")
    await coming.open()
    assert coming.away == {"odd": "The engine 'odd' is away: no JSON"}
    there = asyncio.Event()

    async def came(name: str) -> None:
        if odd.tries < 4:  # It goes again while it is taken, of which it is told here too.
            coming.gone(name, OSError(0, "gone"))
            odd.tries += 1
            raise OSError(0, "gone")
        there.set()

    coming.begin(came)
    async with asyncio.timeout(30):
        await there.wait()

    assert coming.away == {}
    await coming.close()
