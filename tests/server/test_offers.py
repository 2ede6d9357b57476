"""What servers offer together, and what jobs of another server's engine are said to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace

from neuro.domain.errors import Conflict, Unavailable
from neuro.domain.jobs import JobStatus, Transition
from neuro.domain.resources import GIB, Amount, Preset
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.fleet.assembly import Fleet
from neuro.server.fleet.registry import Servers
from neuro.server.jobs.board import Board
from neuro.server.jobs.offers import EngineOffer, Offered, Offers
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord
from tests.postgres import PostgresServer
from tests.server.fleet.servers import Member, member
from tests.server.nodes import one_node
from tests.server.test_tables import record

pytestmark = pytest.mark.postgres

CAPACITY = Amount(cpu=2, memory=4 * GIB)


def offered(*presets: Preset, name: str, local: bool = False) -> Offered:
    engine = EngineOffer(capacity=CAPACITY, of_this_machine=local)
    return Offered(engines={name: engine}, presets=list(presets))


def preset(name: str, engine: str, cpu: float = 1) -> Preset:
    return Preset(name=name, cpu=cpu, memory=GIB, engine=engine)


def of_engine(engine: str, cpu: float) -> JobRecord:
    job = replace(record(over=False), engine=engine)
    amount = Amount(cpu=cpu, memory=GIB)
    return replace(job, specification=replace(job.specification, amount=amount))


@asynccontextmanager
async def offering(it: Member, own: Offered, url: str | None = None) -> AsyncIterator[Offers]:
    servers = Servers(it.database, it.id, it.changes)
    await servers.enter(None, url or f"http://{it.id}/api/v1", datetime.now(UTC))
    fleet = Fleet(it.id, it.changes, it.leases, servers, it.background)
    offers = Offers(it.database, fleet, own)
    await offers.start(it.background)
    try:
        yield offers
    finally:
        await offers.close()


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        yield url


async def test_each_server_offers_what_all_have(url: str) -> None:
    async with member(url, "one") as one, member(url, "two") as two:
        first = offered(preset("small", "a"), preset("large", "a"), name="a")
        second = offered(preset("small", "b", cpu=2), name="b")
        async with offering(one, first) as offers, offering(two, second) as others:
            async with asyncio.timeout(30):
                while len(offers.engines) < 2:
                    await asyncio.sleep(0.01)

            assert set(offers.capacities) == set(others.capacities) == {"a", "b"}
            assert [(one.name, one.engine) for one in offers.presets] == [
                ("small", "a"),
                ("large", "a"),
            ]
            assert [(one.name, one.engine) for one in others.presets] == [
                ("small", "b"),
                ("large", "a"),
            ]


async def test_a_job_says_what_it_waits_for_at_another_server(url: str) -> None:
    async with member(url, "one") as one, member(url, "two") as two:
        shared = offered(name="shared")
        async with offering(one, shared), offering(two, shared) as offers:
            board = Board({}, offers.waits_for)
            running = replace(of_engine("shared", 1.5), phase=Phase.RUNNING)
            board.know(running)
            waiting = of_engine("shared", 1)
            needs = "Waits for a server that has the engine 'shared'"
            assert board.waits_for(waiting) == needs

            await one.seek("engine:shared")
            held = await offers.holder_of("shared")

            assert held is not None
            assert held.url == "http://one/api/v1"
            assert board.waits_for(waiting) == "Waits for 1 CPU (0.5 free)"
            assert board.waits_for(of_engine("shared", 0.5)) == "Waits for its turn"
            await two.seek("engine:shared")
            moved = asyncio.create_task(offers.until_moved("shared", held))
            await one.leases.give_up("engine:shared")
            async with asyncio.timeout(30):
                while two.lease is None:
                    await asyncio.sleep(0.01)
                offers.look()
                await moved
            assert await offers.holder_of("shared") is None


async def test_an_engine_of_one_machine_is_not_offered_by_another(url: str) -> None:
    async with member(url, "one") as one, member(url, "two") as two:
        own = offered(name="sandbox", local=True)
        async with offering(one, own):
            with pytest.raises(Conflict, match="that no other has"):
                async with offering(two, own):
                    pass


async def test_a_server_that_began_anew_is_another_holder(url: str) -> None:
    async with member(url, "one") as one, member(url, "two") as two:
        shared = offered(name="shared")
        async with offering(one, shared), offering(two, shared) as offers:
            await one.seek("engine:shared")
            held = await offers.holder_of("shared")
            assert held is not None
            moved = asyncio.create_task(offers.until_moved("shared", held))

            await one.leases.give_up("engine:shared")
            await one.seek("engine:shared")

            async with asyncio.timeout(30):
                offers.look()
                await moved
            again = await offers.holder_of("shared")
            assert again is not None
            assert (again.server, again.number > held.number) == ("one", True)


LOOPBACK = "http://127.0.0.1:8085/api/v1"


@pytest.mark.parametrize(
    ("first", "second", "whose"),
    [(LOOPBACK, None, "the other one's"), (None, LOOPBACK, "this one's")],
)
async def test_servers_of_several_machines_need_addresses(
    url: str, first: str | None, second: str | None, whose: str
) -> None:
    here, there = (replace(offered(name=name), machine=name) for name in ("here", "there"))
    async with member(url, "one") as one, member(url, "two") as two, offering(one, here, first):
        with pytest.raises(Conflict, match=f"`url` below .* in {whose} server.toml"):
            async with offering(two, there, second):
                pass
        async with offering(two, replace(there, machine="here"), second):
            pass


async def test_nobodys_token_goes_to_an_address_that_is_this_machines_own(url: str) -> None:
    async with member(url, "one") as one, member(url, "two") as two:
        here = replace(offered(name="shared"), machine="here")
        async with offering(one, here, LOOPBACK), offering(two, here) as offers:
            await one.seek("engine:shared")
            assert await offers.holder_of("shared") is not None

            # As of one that came at the same moment, and saw nobody.
            there = msgspec.json.encode(replace(here, machine="there"))
            await Servers(one.database, "one", one.changes).publish(there)

            async def ask_on() -> None:
                while await offers.holder_of("shared"):
                    offers.look()
                    await asyncio.sleep(0.01)

            with pytest.raises(Unavailable, match="write `url` below"):
                await asyncio.wait_for(ask_on(), 30)


def test_jobs_of_another_servers_engine_are_counted_as_they_come_and_go() -> None:
    board = Board({})
    waiting = of_engine("theirs", 1.5)
    started = Transition(status=JobStatus.RUNNING, transition_time=datetime.now(UTC))
    running = replace(waiting, phase=Phase.RUNNING, transitions=(started,))

    def counted() -> tuple[float, int, int]:
        load = board.load_of("theirs")
        return load.taken.cpu, load.running, load.waiting

    board.know(waiting)
    assert counted() == (0, 0, 1)
    board.know(running)
    assert counted() == (1.5, 1, 0)
    board.open("theirs", one_node(CAPACITY))
    board.add(running)
    assert counted() == (0, 0, 0)
    board.close("theirs")
    assert counted() == (1.5, 1, 0)
    board.forget(running.id)
    assert counted() == (0, 0, 0)
