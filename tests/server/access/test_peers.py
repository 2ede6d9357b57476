"""What ends on one server ends on all of them: for the next request, and for what streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from neuro.domain.errors import NotAuthenticated
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.domain.users import Token
from neuro.server.access import peers
from neuro.server.access.grants import Grant
from neuro.server.access.identity import Identity
from neuro.server.access.peers import Drop, OtherServers, Peers, Then
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.fleet.changes import Snapshot, Topic, sweep
from neuro.server.fleet.registry import Servers
from tests.postgres import PostgresServer
from tests.server.fleet.servers import Member, member

pytestmark = pytest.mark.postgres

KEY = b"k" * 32
DATA = ResourceURI("storage", "default", ("anna", "data"))
TEAM = "anna/team"


@dataclass
class Server:
    """One of several."""

    member: Member
    access: AccessService

    async def may(self, token: str) -> Action | None:
        """What the next request with a token may do with the data."""
        try:
            return (await self.access.authenticate(token)).action_on(DATA)
        except NotAuthenticated:
            return None

    async def owner(self) -> Identity:
        return await self.access.identity_of("anna")


@dataclass
class House:
    """Two servers, and boris, who is known to both."""

    one: Server
    other: Server
    token: Token

    @property
    def text(self) -> str:
        return self.token.token or ""

    async def share(self, subject: str, uri: ResourceURI = DATA) -> None:
        grant = Grant(uri, Action.READ, None, "anna")
        await self.one.access.sharing.share(await self.one.owner(), subject, [grant])


@pytest.fixture
def url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        database = Database(url)
        migrate(database)
        database.close()
        yield url


@asynccontextmanager
async def server(url: str, name: str) -> AsyncIterator[Server]:
    async with member(url, name) as made:
        others = OtherServers(made.database, made.changes, name, made.background)
        access = AccessService(made.database, KEY, "default", peers=others)
        await Servers(made.database, name, made.changes).enter(name, "http://x", datetime.now(UTC))
        yield Server(made, access)


@pytest.fixture
async def house(url: str) -> AsyncIterator[House]:
    async with server(url, "one") as one, server(url, "other") as other:
        for name in ("anna", "boris"):
            await one.access.add_user(name)
        token = await one.access.make_token("boris")
        yield House(one, other, token)


async def _take_back(house: House) -> None:
    await house.one.access.sharing.revoke(await house.one.owner(), "boris", DATA)


async def _leave_role(house: House) -> None:
    role = ResourceURI("role", "anna", ("team",))
    await house.one.access.sharing.revoke(await house.one.owner(), "boris", role)


async def _empty_role(house: House) -> None:
    await house.one.access.sharing.revoke(await house.one.owner(), TEAM, DATA)


async def _remove_role(house: House) -> None:
    await house.one.access.sharing.remove_role(await house.one.owner(), TEAM)


async def _revoke_token(house: House) -> None:
    await house.one.access.revoke_token("boris", house.token.id)


async def _remove_person(house: House) -> None:
    await house.one.access.remove_user("boris")


ENDS: dict[str, tuple[bool, Callable[[House], Awaitable[None]]]] = {
    "a grant is taken back": (False, _take_back),
    "somebody leaves a role": (True, _leave_role),
    "a role has it no more": (True, _empty_role),
    "a role is removed": (True, _remove_role),
    "a token is revoked": (False, _revoke_token),
    "a person is removed": (False, _remove_person),
}


@pytest.mark.parametrize("what", ENDS)
async def test_the_next_request_at_the_other_server_is_refused(house: House, what: str) -> None:
    by_role, end = ENDS[what]
    if by_role:
        await house.one.access.sharing.add_role(await house.one.owner(), TEAM)
        await house.share("boris", ResourceURI("role", "anna", ("team",)))
    await house.share(TEAM if by_role else "boris")
    changed: list[object] = []

    async def note(users: object) -> None:
        changed.append(users)

    house.other.access.book.listen(note)
    house.other.access.listen(lambda user, token_id: changed.append((user, token_id)))
    assert await house.other.may(house.text) is Action.READ

    await end(house)

    assert await house.other.may(house.text) is None
    assert changed, "what streams there is told before it is answered"


async def test_what_is_given_is_there_for_the_next_request_at_the_other_server(
    house: House,
) -> None:
    assert await house.other.may(house.text) is None

    await house.share("boris")

    assert await house.other.may(house.text) is Action.READ


async def test_one_that_stands_still_is_waited_for_until_it_may_not_trust_itself(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRUST_SECONDS", 0.5)
    await house.share("boris")
    assert await house.other.may(house.text) is Action.READ
    await house.other.member.freeze()

    began = time.monotonic()
    await _take_back(house)

    assert time.monotonic() - began >= 0.5
    assert await house.other.may(house.text) is None


async def test_one_that_has_left_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRUST_SECONDS", 100.0)
    changes = house.other.member.changes
    await house.other.member.freeze()
    await Servers(house.other.member.database, "other", changes).leave()

    async with asyncio.timeout(50):
        await house.share("boris")


async def test_one_that_fell_behind_looks_at_every_token_with_which_something_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRUST_SECONDS", 0.1)
    good = await house.one.access.make_token("boris")
    open_ = [("boris", token.id) for token in (house.token, good)]
    ended: list[object] = []
    told = asyncio.Event()
    other = house.other

    def note(user: str, token_id: str | None) -> None:
        ended.append((user, token_id))
        told.set()

    other.access.ask(lambda: open_)
    other.access.listen(note)
    await other.member.freeze()
    seen = await house.one.member.database.read(_snapshot)
    await _revoke_token(house)
    await house.one.member.database.write(lambda c: sweep(c, seen, most=0))

    await other.member.changes.look()

    async with asyncio.timeout(50):
        await told.wait()
    assert ended == [open_[0]]


async def test_one_that_fell_behind_keeps_no_grant_that_was_taken_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRUST_SECONDS", 0.1)
    await house.share("boris")
    assert await house.other.may(house.text) is Action.READ
    told = asyncio.Event()

    async def note(users: object) -> None:
        assert users is None, "what streams to anybody is looked at"
        told.set()

    house.other.access.book.listen(note)
    await house.other.member.freeze()
    seen = await house.one.member.database.read(_snapshot)
    await _take_back(house)
    await house.one.member.database.write(lambda c: sweep(c, seen, most=0))

    await house.other.member.changes.look()

    assert house.other.access.book.known("boris") is None
    assert await house.other.may(house.text) is None
    async with asyncio.timeout(50):
        await told.wait()


async def test_a_job_that_ends_does_not_wait_for_other_servers(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "TRUST_SECONDS", 100.0)
    token = await house.one.access.pass_token("boris", job="job-1")
    assert await house.other.access.authenticate(token.token or "")
    await house.other.member.freeze()

    async with asyncio.timeout(50):
        await house.one.access.end_tokens_of_jobs(["job-1"])

    await house.other.member.changes.look()
    with pytest.raises(NotAuthenticated):
        await house.other.access.authenticate(token.token or "")


def _snapshot(connection: Connection) -> Snapshot:
    row = connection.execute(text("SELECT CAST(pg_current_snapshot() AS TEXT)")).scalar_one()
    return Snapshot.of(row, 0)


class Fallen(Peers):
    """Of a server that fell behind."""

    def __init__(self) -> None:
        self.then: dict[str, Then] = {}

    def hear(self, topic: str, drop: Drop, then: Then) -> None:
        self.then[topic] = then


async def test_where_no_token_can_be_asked_about_none_goes_on() -> None:
    database, fallen = Database("postgresql://127.0.0.1:1/nowhere"), Fallen()
    access = AccessService(database, KEY, "default", peers=fallen)
    ended: list[object] = []
    access.ask(lambda: [("boris", "t")])
    access.listen(lambda user, token_id: ended.append((user, token_id)))

    await fallen.then[Topic.TOKENS](None)

    assert ended == [("boris", "t")]
    database.close()
