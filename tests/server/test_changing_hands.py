"""Engines that change hands: another server goes on with their jobs, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from random import Random

import msgspec
import pytest
from sqlalchemy import Connection, select, text, update

from neuro.domain.jobs import JobStatus, Reason
from neuro.domain.resources import NOTHING
from neuro.engines.base import Event, RunRef, RunSpec, RunState
from neuro.server import background
from neuro.server.background import Background
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.engine_settings import Share
from neuro.server.fleet.changes import Changes
from neuro.server.fleet.leases import LeaseLost
from neuro.server.jobs import endings, life, lookups, tables
from neuro.server.jobs.board import Board
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.follower import JobFollower
from neuro.server.jobs.intent_rows import Intent, intents, stops_asked
from neuro.server.jobs.intents import Intents
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.reconciler import Reconciler
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.writer import Writer
from tests.engines.memory import MemoryEngine
from tests.engines.troubled import TroubledEngine
from tests.server.test_tables import add, record

GIB = 1 << 30
CAPACITY = Share(cpu=3, memory=3 * GIB)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


class Grip:
    """A lease whose end is for a test to choose."""

    def __init__(self) -> None:
        self.is_held = True
        self.is_lost = False

    def check(self, connection: Connection) -> None:
        if self.is_lost:
            raise LeaseLost("Another server has taken over the engine.")

    def lose(self) -> None:
        self.is_held, self.is_lost = False, True


class SharedEngine(TroubledEngine):
    """One whose events are told to every server that has it."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.views: list[View] = []

    def tell(self, event: Event) -> None:
        for view in self.views:
            view.tell(event)


class View(MemoryEngine):
    """What one server has of it: its events come to each, and late ones to whoever had it."""

    def __init__(self, shared: SharedEngine) -> None:
        super().__init__()
        self._shared = shared
        shared.views.append(self)
        self.start = shared.start  # type: ignore[method-assign]
        self.stop = shared.stop  # type: ignore[method-assign]

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        await super().adopt(known)
        return await self._shared.adopt(known)

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        return await self._shared.resync(refs)


class Server:
    """The part for jobs of one of several servers."""

    def __init__(self, database: Database, **engines: MemoryEngine) -> None:
        self.database = database
        self.background = Background()
        self.board = Board({}, lambda record, board: "Waits for a server")
        self.writer = Writer(database)
        self.writer.start(self.background)
        self.reconciler = Reconciler(
            self.board,
            self.writer,
            engines,  # type: ignore[arg-type]  # what is asked here of one
            _spec,
            self.background,
            stop_grace=0,
        )
        changes = Changes(database, "one", self.background)
        self.intents = Intents(
            database,
            self.board,
            self.writer,
            self.reconciler,
            changes,
            DamagedJobs(database, self.reconciler, 0),
        )
        self.anew = 0
        self.follower = JobFollower(
            database, self.board, self.writer, self.reconciler, self.intents, self._begin_anew
        )
        self.changes = changes

    def _begin_anew(self) -> None:
        self.anew += 1

    async def take(
        self, name: str = "sandbox", share: Share = CAPACITY, away: str | None = None
    ) -> Grip:
        grip = Grip()
        active = self.database.write_now(lambda c: tables.active_jobs(c, name))
        runs = self.database.write_now(lambda c: lookups.runs_with_logs(c, name))
        self.writer.fence(name, grip)
        known = [RunRef(job_id, run) for job_id, run in runs]
        await self.reconciler.take(name, share, active, known, grip, away)
        return grip

    def submit(self, job: JobRecord) -> JobRecord:
        reserved = self.board.reserve(job)
        sequence = self.database.write_now(lambda c: tables.insert_job(c, reserved))
        accepted = msgspec.structs.replace(reserved, sequence=sequence)
        self.reconciler.submitted(accepted)
        return accepted

    async def until(self, job_id: str, holds: Callable[[JobRecord], bool]) -> JobRecord:
        async with asyncio.timeout(30):
            kept = self.board.get(job_id)
            assert kept is not None
            return await self.board.wait_until(kept, holds)

    async def close(self) -> None:
        await self.reconciler.close()
        await self.follower.close()
        await self.writer.close()


async def _spec(job: JobRecord) -> RunSpec:
    return RunSpec(
        job_id=job.id,
        run=job.run,
        image="ubuntu",
        argv=argv(job),
        cpu=1,
        memory=GIB,
        node=job.node,
        gpus=job.gpus or (),
    )


def argv(job: JobRecord) -> tuple[str, ...]:
    return tuple(job.specification.tags[0].split("-"))


def new_job(command: str, engine: str = "sandbox") -> JobRecord:
    made = record(over=False)
    specification = msgspec.structs.replace(made.specification, tags=[command])
    return msgspec.structs.replace(made, specification=specification, engine=engine)


def kept(database: Database, job: JobRecord) -> JobRecord:
    found = database.write_now(lambda c: tables.get_job(c, job.id))
    assert found is not None
    return found


async def eventually(holds: Callable[[], bool]) -> None:
    """Ask again every few milliseconds: what another task does by and by tells nobody."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def test_another_server_goes_on_with_the_jobs_of_an_engine(database: Database) -> None:
    engine = MemoryEngine()
    first, second = Server(database, sandbox=engine), Server(database, sandbox=engine)
    grip = await first.take()
    runs, ends = first.submit(new_job("wait")), first.submit(new_job("wait"))
    await first.until(runs.id, lambda job: job.run_started)
    await first.until(ends.id, lambda job: job.run_started)
    await first.writer.settle()

    grip.lose()
    await first.reconciler.drop("sandbox")
    engine.end(RunRef(ends.id), 3)
    await second.take()

    await eventually(lambda: kept(database, ends).exit_code == 3)
    assert first.board.get(runs.id) is None
    assert first.board.is_known(runs.id)
    first.reconciler.stop(runs, Reason.USER_REQUESTED)
    assert [spec.job_id for spec in engine.live] == [runs.id]
    second.reconciler.stop(runs, Reason.USER_REQUESTED)
    await eventually(lambda: kept(database, runs).status is JobStatus.CANCELLED)
    assert set(engine.begun.values()) == {1}
    assert second.board.lanes["sandbox"].taken == NOTHING
    await first.close()
    await second.close()


async def test_what_a_former_holder_writes_changes_nothing_of_the_engine(
    database: Database,
) -> None:
    lost, own = MemoryEngine(), MemoryEngine()
    server = Server(database, lost=lost, own=own)
    grip = await server.take("lost")
    await server.take("own")
    jobs = {name: server.submit(new_job("wait", name)) for name in ("lost", "own")}
    for job in jobs.values():
        await server.until(job.id, lambda one: one.run_started)
    await server.writer.settle()

    grip.lose()
    for engine, job in zip((lost, own), jobs.values(), strict=True):
        engine.end(RunRef(job.id), 0)
    await eventually(lambda: kept(database, jobs["own"]).status is JobStatus.SUCCEEDED)
    await server.writer.settle()

    assert kept(database, jobs["lost"]).status is JobStatus.RUNNING
    await server.close()


async def test_a_damaged_job_ends_where_its_engine_is_when_anybody_asks(
    database: Database,
) -> None:
    engine = MemoryEngine()
    first = Server(database, sandbox=engine)
    await first.take()
    job, other = first.submit(new_job("wait")), first.submit(new_job("wait"))
    for one in (job, other):
        await first.until(one.id, lambda found: found.run_started)
    await first.writer.settle()
    await first.close()
    spoilt = update(tables.jobs).where(tables.jobs.c.id == job.id).values(transitions=b"secret")
    database.write_now(lambda c: c.execute(spoilt))
    asked, holder = Server(database), Server(database, sandbox=engine)
    await holder.take()
    assert len(engine.live) == 2

    await asked.intents.ask([Intent.stop(job, Reason.USER_REQUESTED)])
    assert await asked.intents.obey(None) == ([], [])
    assert len(engine.live) == 2
    assert await holder.intents.obey(None) == ([], [])

    assert [spec.job_id for spec in engine.live] == [other.id]
    assert kept(database, job).status is JobStatus.CANCELLED
    assert database.write_now(lambda c: stops_asked(c, [job.id])) == {}
    for server in (asked, holder):
        await server.close()


async def test_a_holder_that_is_not_sure_of_its_lease_asks_nothing_of_the_engine(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(life, "NOT_READY_SECONDS", 0.001)
    monkeypatch.setattr(life, "STOP_AGAIN_SECONDS", 0.001)
    engine = MemoryEngine()
    server = Server(database, sandbox=engine)
    grip = await server.take()
    going = server.submit(new_job("wait"))
    await server.until(going.id, lambda job: job.run_started)

    grip.is_held = False  # as after a freeze
    job = server.submit(new_job("exit-0"))
    server.reconciler.stop(going, Reason.USER_REQUESTED)
    waits = await server.until(job.id, lambda one: one.phase is Phase.PAUSING)
    await eventually(lambda: all(one.tries > 2 or one.stops > 2 for one in server.board))
    assert "tries again" in (waits.transitions[-1].description or "")
    assert [spec.job_id for spec in engine.live] == [going.id]
    assert set(engine.begun) == {RunRef(going.id)}

    grip.is_held = True  # nobody had taken it
    over = await server.until(job.id, lambda one: not one.is_active)
    assert over.status is JobStatus.SUCCEEDED
    await eventually(lambda: engine.live == [])
    await server.close()


async def test_a_job_of_another_server_is_known_and_its_own_is_taken_in(
    database: Database,
) -> None:
    server = Server(database, sandbox=MemoryEngine())
    await server.take()
    await server.follower.start(server.background)
    heard: list[JobRecord] = []
    server.board.listen(heard.append)
    ours, theirs = new_job("exit-0"), new_job("wait", "other")
    # What the other server had reserved, it had of an engine that was not its own any more.
    add(database, msgspec.structs.replace(ours, phase=Phase.STARTING), theirs)

    server.follower.changed([ours.id, theirs.id])
    await eventually(lambda: kept(database, ours).status is JobStatus.SUCCEEDED)

    assert server.board.waits_for(theirs) == "Waits for a server"
    assert [one.id for one in server.board] == [theirs.id]
    assert server.board.jobs_of("alice") == 1
    waiting = asyncio.create_task(server.board.wait_until(theirs, lambda one: not one.is_active))
    over = theirs.ended(JobStatus.FAILED, "Error", theirs.created_at, exit_code=1)
    database.write_now(lambda c: tables.update_jobs(c, [over]))
    server.follower.changed([theirs.id, ours.id])
    assert (await asyncio.wait_for(waiting, 30)).status is JobStatus.FAILED
    assert server.board.jobs_of("alice") == 0
    # One that is over is not taken in again.
    assert [one.status for one in heard if one.id == ours.id].count(JobStatus.RUNNING) == 1
    await server.close()


async def test_a_server_that_fell_behind_looks_at_everything(database: Database) -> None:
    server = Server(database, sandbox=MemoryEngine())
    await server.take()
    await server.follower.start(server.background)
    gone, theirs = new_job("wait", "other"), new_job("wait", "other")
    add(database, gone)
    server.follower.changed([gone.id])
    await eventually(lambda: server.board.is_known(gone.id))

    database.write_now(lambda c: c.execute(text("DELETE FROM jobs")))
    add(database, theirs)
    server.follower.changed(None)

    await eventually(lambda: [one.id for one in server.board] == [theirs.id])
    assert server.anew == 1
    await server.close()


async def test_what_is_asked_of_a_job_is_done_by_who_has_it_and_by_nobody_twice(
    database: Database,
) -> None:
    engine = MemoryEngine()
    server = Server(database, sandbox=engine)
    await server.take()
    await server.follower.start(server.background)
    job = server.submit(new_job("wait"))
    theirs, over = new_job("wait", "other"), record()
    add(database, theirs, over)
    await server.until(job.id, lambda one: one.run_started)
    await server.writer.settle()

    def left() -> list[str]:
        return database.write_now(lambda c: list(c.execute(select(intents.c.job_id)).scalars()))

    await server.intents.ask([Intent.life_span(job, 7), Intent.life_span(theirs, 8)])
    server.follower.asked([job.id, theirs.id])
    await eventually(lambda: kept(database, job).max_run_time_minutes == 7)
    await eventually(lambda: left() == [theirs.id])

    every = [job, theirs, over]
    await server.intents.ask([Intent.stop(one, Reason.USER_REQUESTED) for one in every])
    server.follower.asked(None)
    await eventually(lambda: kept(database, job).status is JobStatus.CANCELLED)
    await eventually(lambda: left() == [theirs.id, theirs.id])
    await server.close()


@pytest.mark.parametrize("seed", range(3))
async def test_every_job_ends_once_however_often_its_engine_changes_hands(
    database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name in ("NOT_READY_SECONDS", "STOP_AGAIN_SECONDS"):
        monkeypatch.setattr(life, name, 0.001)
    monkeypatch.setattr(background, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(endings, "MAX_BACKOFF_SECONDS", 0.001)
    random = Random(seed)
    engine = SharedEngine(random)
    servers = [Server(database, sandbox=View(engine)) for _ in range(2)]
    for server in servers:
        await server.follower.start(server.background)
    holder, grip = servers[0], await servers[0].take()
    commands = ["exit-0", "exit-0", "exit-3"]
    jobs = [new_job(random.choice(commands)) for _ in range(12)]
    asked: set[str] = set()
    async with asyncio.timeout(60):
        for job in jobs:
            if random.random() < 0.5:
                holder.submit(job)
            else:
                add(database, job)
                holder.follower.changed([job.id])
            if random.random() < 0.1:
                asked.add(job.id)
                await servers[1].intents.ask([Intent.stop(job, Reason.USER_REQUESTED)])
                holder.follower.asked([job.id])
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.005]))
            if random.random() < 0.3:
                # Whatever the former holder is at: it finds out before or after it was replaced.
                grip.lose()
                late = random.random() < 0.5
                if not late:
                    await holder.reconciler.drop("sandbox")
                other = servers[holder is servers[0]]
                grip = await other.take()
                other.follower.changed([one.id for one in other.board.followed])
                other.follower.asked(None)
                if late:
                    await holder.reconciler.drop("sandbox")
                holder = other
        while any(kept(database, job).is_active for job in jobs):
            holder.follower.changed(None)
            await asyncio.sleep(0.01)

    for job in jobs:
        found = kept(database, job)
        ends = [one for one in found.transitions if one.status.is_finished]
        assert ends == [found.transitions[-1]]
        if found.status is JobStatus.CANCELLED:
            assert job.id in asked
        else:
            assert str(found.exit_code) == argv(job)[1]
    assert set(engine.begun.values()) <= {1}
    assert engine.live == []
    assert holder.board.lanes["sandbox"].taken == NOTHING
    for server in servers:
        await server.close()
