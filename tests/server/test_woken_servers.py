"""Servers that were frozen: what is asked of them is not lost, and they tell of nothing falsely."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from sqlalchemy import select

from neuro.domain.errors import NoSuchJob
from neuro.domain.jobs import ContainerRequest, JobStatus, LifeSpanChange, Reason
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.leases import Leases
from neuro.server.fleet.registry import Servers
from neuro.server.jobs import reconciler, tables
from neuro.server.jobs.damaged import DamagedJobs
from neuro.server.jobs.events import JobEvents
from neuro.server.jobs.intent_rows import Intent, intents
from neuro.server.jobs.offers import Offered, Offers
from neuro.server.jobs.others import Others
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.plan import Offer
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService
from tests.engines.memory import MemoryEngine
from tests.postgres import PostgresServer
from tests.server.test_changing_hands import Grip, Server, eventually, kept, new_job
from tests.server.test_tables import add


@pytest.fixture
def any_database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


def left(database: Database) -> list[Intent]:
    """What is asked and not done yet."""
    rows = database.write_now(lambda c: c.execute(select(intents).order_by("sequence")).all())
    return [Intent(row.job_id, row.kind, row.value) for row in rows]


async def with_a_job(
    database: Database, job: JobRecord | None = None
) -> tuple[Server, Grip, JobRecord]:
    """A server, its lease, and a job of it that runs."""
    server = Server(database, sandbox=MemoryEngine())
    grip = await server.take()
    runs = server.submit(job or new_job("wait"))
    await server.until(runs.id, lambda one: one.run_started)
    await server.writer.settle()
    return server, grip, runs


async def with_jobs_of_each_kind(database: Database) -> tuple[Server, Grip, list[JobRecord]]:
    """One job that runs, and one that waits: there is no room for it."""
    server, grip, runs = await with_a_job(database)
    for _ in range(2):
        server.submit(new_job("wait"))
    waits = server.submit(new_job("wait"))
    await server.writer.settle()
    assert server.board.get(waits.id) == waits
    return server, grip, [runs, waits]


async def test_what_is_asked_of_one_that_has_lost_the_engine_is_left_for_its_new_holder(
    any_database: Database,
) -> None:
    server, grip, jobs = await with_jobs_of_each_kind(any_database)
    intents = [Intent.stop(job, Reason.USER_REQUESTED) for job in jobs]
    await server.intents.ask(intents)

    grip.lose()
    await server.intents.obey([job.id for job in jobs])

    assert left(any_database) == intents
    assert [kept(any_database, job).stop_reason for job in jobs] == [None, None]
    await server.close()


async def test_what_could_not_be_obeyed_yet_is_looked_at_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, grip, job = await with_a_job(database)
    obey, looks = server.intents.obey, list[object]()

    async def obey_and_count(job_ids: Sequence[str] | None) -> list[str]:
        looks.append(job_ids)
        return await obey(job_ids)

    monkeypatch.setattr(server.intents, "obey", obey_and_count)
    await server.follower.start(server.background)
    await server.intents.ask([Intent.life_span(job, 7)])

    grip.is_held = False
    server.follower.asked([job.id])
    await server.until(job.id, lambda one: one.max_run_time_minutes == 7)
    await server.writer.settle()
    assert left(database)
    grip.is_held = True

    await eventually(lambda: not left(database))
    await server.close()


async def test_what_is_asked_again_takes_no_more_room(any_database: Database) -> None:
    server, theirs = Server(any_database), new_job("wait", "other")
    add(any_database, theirs)

    for minutes in (5, 6):
        await server.intents.ask([Intent.life_span(theirs, minutes)])
        await server.intents.ask([Intent.stop(theirs, Reason.USER_REQUESTED)])

    first = [Intent.stop(theirs, Reason.USER_REQUESTED), Intent.life_span(theirs, 6)]
    assert left(any_database) == first
    await server.close()


async def test_what_only_a_newer_version_understands_holds_up_nothing(database: Database) -> None:
    server, _, job = await with_a_job(database)
    newer = Intent(job.id, "stop", "TheMoonIsFull")

    await server.intents.ask([newer, Intent.life_span(job, 7)])
    await server.intents.obey([job.id])

    assert left(database) == []
    assert kept(database, job).max_run_time_minutes == 7
    assert kept(database, job).stop_reason is None
    await server.close()


async def test_a_job_that_waits_out_its_time_ends_only_where_it_is_held(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "UNSURE_SECONDS", 0.01)
    server, grip, (_, waits) = await with_jobs_of_each_kind(database)
    specification = msgspec.structs.replace(waits.specification, schedule_timeout=1.0)
    moment = datetime.now(UTC)
    late = msgspec.structs.replace(
        waits, specification=specification, wake_at=moment, created_at=moment - timedelta(1)
    )
    server.board.put(late)
    told = asyncio.Event()
    server.board.listen(lambda record: told.set() if record.id == late.id else None)

    grip.is_held = False
    server.reconciler._ring(late.id)
    assert not told.is_set()
    assert server.board.get(late.id) is late
    grip.is_held = True

    await asyncio.wait_for(told.wait(), 30)
    await eventually(lambda: kept(database, late).status is JobStatus.FAILED)
    await server.close()


async def test_a_job_that_arrives_is_kept_without_what_it_never_had(database: Database) -> None:
    server, _, _ = await with_jobs_of_each_kind(database)
    ours = msgspec.structs.replace(new_job("wait"), phase=Phase.STARTING, gpus=("0",))
    add(database, ours)

    (record,) = database.write_now(lambda c: tables.get_jobs(c, [ours.id]))
    server.reconciler.arrived(record)
    await server.writer.settle()

    assert not kept(database, ours).placed
    await server.close()


async def test_who_waits_for_a_job_that_was_removed_elsewhere_is_told(database: Database) -> None:
    server, theirs = Server(database), new_job("wait", "other")
    server.board.know(theirs)
    waiting = asyncio.create_task(server.board.wait_until(theirs, lambda one: not one.is_active))
    await eventually(lambda: server.board.watched() == [theirs.id])

    server.board.forget(theirs.id)

    with pytest.raises(NoSuchJob, match=theirs.id):
        await asyncio.wait_for(waiting, 30)
    assert server.board.watched() == []
    await server.close()


async def no_volumes(owner: str, container: ContainerRequest) -> list[str]:
    return []


async def no_secrets(caller: Identity, container: ContainerRequest) -> None:
    pass


def service_of(server: Server) -> JobService:
    database, changes = server.database, server.changes
    leases = Leases(database, "one", server.background, changes)
    servers = Servers(database, "one", changes)
    fleet = Fleet("one", changes, leases, servers, server.background)
    offers = Offers(database, fleet, Offered())
    return JobService(
        database,
        server.board,
        server.writer,
        server.reconciler,
        {},
        Offer("default", [], "sandbox", "localhost", str),
        check_volumes=no_volumes,
        check_secrets=no_secrets,
        image_notice=lambda engine, image: None,
        events=JobEvents(server.board),
        damaged=DamagedJobs(database, server.reconciler, 0),
        others=Others(server.board, changes, server.follower, server.intents, offers),
    )


async def test_a_kill_is_not_lost_with_the_engine(database: Database) -> None:
    server, grip, jobs = await with_jobs_of_each_kind(database)

    grip.lose()
    await service_of(server).kill_all(jobs)

    assert {intent.job_id for intent in left(database)} == {job.id for job in jobs}
    await server.close()


async def test_a_kill_by_who_has_the_engine_asks_nobody(database: Database) -> None:
    server, _, jobs = await with_jobs_of_each_kind(database)

    await service_of(server).kill_all(jobs)

    assert left(database) == []
    await eventually(lambda: all(kept(database, job).status.is_finished for job in jobs))
    await server.close()


async def test_a_life_span_is_not_lost_with_the_engine(database: Database) -> None:
    server, grip, job = await with_a_job(database)
    change = LifeSpanChange(max_run_time_minutes=7)

    grip.lose()
    await service_of(server).change_life_span(job, change)

    assert left(database) == [Intent.life_span(job, 7)]
    await server.close()


@pytest.fixture
def on_postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        yield database
        database.close()


@pytest.mark.postgres
async def test_minutes_that_are_added_at_once_through_several_servers_are_all_added(
    on_postgres: Database,
) -> None:
    database = on_postgres
    holder, _, job = await with_a_job(
        database, msgspec.structs.replace(new_job("wait"), max_run_time_minutes=60)
    )
    await holder.follower.start(holder.background)
    others = [Server(database) for _ in range(2)]
    for other in others:
        other.board.know(job)
    # Whoever has the engine is asked as well: it has not heard of what the others were asked yet.
    asked = [*others, holder]
    change = LifeSpanChange(additional_max_run_time_minutes=10)

    asking = [asyncio.create_task(service_of(one).change_life_span(job, change)) for one in asked]

    def is_all_added() -> bool:
        holder.follower.asked([job.id])  # as the feed of changes does
        return kept(database, job).max_run_time_minutes == 90

    await eventually(is_all_added)
    for other in others:
        other.follower.changed([job.id])
        await other.follower.start(other.background)
    await asyncio.wait_for(asyncio.gather(*asking), 30)

    for server in (holder, *others):
        await server.close()
