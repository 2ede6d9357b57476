"""Users and tokens, on both databases."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, text

from neuro.client import Client
from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Unavailable,
)
from neuro.domain.permissions import Action
from neuro.domain.uris import parse_uri
from neuro.server.access import tokens
from neuro.server.access.scopes import Scope
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.owner import LoginFile, machine_owner

KEY = b"k" * 32
T = TypeVar("T")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


@pytest.fixture
def access(database: Database) -> AccessService:
    return AccessService(database, KEY, "default")


async def test_a_token_stands_for_its_user(access: AccessService) -> None:
    await access.add_user("alice")

    token = await access.make_token("alice", label="laptop")

    identity = await access.authenticate(token.token or "")
    assert identity.user == "alice"
    payload = (token.token or "").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    assert claims["identity"] == "alice"


async def test_neither_the_token_nor_its_signature_is_kept(
    access: AccessService, database: Database
) -> None:
    await access.add_user("alice")

    token = await access.make_token("alice")

    rows = await database.read(lambda c: c.execute(text("SELECT * FROM tokens")).all())
    assert (token.token or "").split(".")[2] not in str(rows)


async def test_a_revoked_token_ends_at_once(access: AccessService) -> None:
    await access.add_user("alice")
    token = await access.make_token("alice")
    await access.authenticate(token.token or "")

    await access.revoke_token("alice", token.id)

    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(token.token or "")


class Held(Database):
    """A database that keeps what it has read to itself for a while, or waits before it writes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.holds = ""
        self.loses_answers = False
        self.was_asked = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def read(self, query: Callable[[Connection], T]) -> T:
        answer = await super().read(query)
        await self._wait("reads")
        return answer

    async def write(self, change: Callable[[Connection], T]) -> T:
        await self._wait("writes")
        answer = await super().write(change)
        if self.loses_answers:
            raise Unavailable("The connection was lost.")
        return answer

    async def _wait(self, what: str) -> None:
        if self.holds == what:
            self.was_asked.set()
            await self.may_go_on.wait()


@pytest.fixture
def held(database_url: str) -> Iterator[Held]:
    database = Held(database_url)
    migrate(database)
    yield database
    database.close()


async def test_a_token_that_ends_while_it_is_looked_up_is_not_good(held: Held) -> None:
    access = AccessService(held, KEY, "default")
    await access.add_user("alice")
    token = await access.make_token("alice")
    held.holds = "reads"

    checking = asyncio.create_task(access.authenticate(token.token or ""))
    await held.was_asked.wait()
    await access.remove_user("alice")
    held.may_go_on.set()

    with pytest.raises(NotAuthenticated, match="revoked"):
        await checking
    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(token.token or "")


async def test_a_token_ends_even_if_who_revokes_it_leaves(held: Held) -> None:
    access = AccessService(held, KEY, "default")
    await access.add_user("alice")
    token = await access.make_token("alice")
    await access.authenticate(token.token or "")
    ended: asyncio.Future[tuple[str, str | None]] = asyncio.get_running_loop().create_future()
    access.listen(lambda user, token_id: ended.set_result((user, token_id)))
    held.holds = "writes"

    revoking = asyncio.create_task(access.remove_user("alice"))
    await held.was_asked.wait()
    revoking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoking
    held.may_go_on.set()

    assert await ended == ("alice", None)
    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(token.token or "")


async def test_whoever_listens_is_told_which_tokens_have_ended(access: AccessService) -> None:
    heard: list[tuple[str, str | None]] = []
    access.listen(lambda user, token_id: heard.append((user, token_id)))
    await access.add_user("alice")
    token = await access.make_token("alice")

    await access.revoke_token("alice", token.id)
    await access.remove_user("alice")

    assert heard == [("alice", token.id), ("alice", None)]


async def test_a_token_is_not_good_after_a_database_failed_to_say_that_it_has_ended(
    held: Held,
) -> None:
    access = AccessService(held, KEY, "default")
    await access.add_user("alice")
    token = await access.make_token("alice")
    await access.authenticate(token.token or "")
    held.loses_answers = True

    with pytest.raises(Unavailable):
        await access.revoke_token("alice", token.id)

    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(token.token or "")


async def test_an_expired_token_says_so(database: Database) -> None:
    now = datetime.now(UTC)
    clock = [now]
    access = AccessService(database, KEY, "default", now=lambda: clock[0])
    await access.add_user("alice")
    token = await access.make_token("alice", life=timedelta(hours=1))
    await access.authenticate(token.token or "")

    clock[0] = now + timedelta(hours=2)

    with pytest.raises(NotAuthenticated, match="expired"):
        await access.authenticate(token.token or "")


async def test_a_scoped_token_expires_soon_and_what_began_with_it_goes_on(
    database: Database,
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    clock = [now]
    access = AccessService(database, KEY, "default", now=lambda: clock[0])
    await access.add_user("alice")
    token = await access.make_token("alice", life=timedelta(hours=1))

    text, _, expires_at = await access.scoped_token(token.token or "", Scope())
    caller = await access.authenticate(text)

    assert expires_at == now + timedelta(minutes=5)
    assert caller.expires_at == token.expires_at
    clock[0] = now + timedelta(minutes=5)
    with pytest.raises(NotAuthenticated, match="expired"):
        await access.authenticate(text)
    clock[0] = now + timedelta(minutes=58)
    _, _, expires_at = await access.scoped_token(token.token or "", Scope())
    assert expires_at == token.expires_at


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "e30.e30.e30", "x" * 100_000])
async def test_what_is_no_token_of_this_server_is_refused(
    access: AccessService, token: str
) -> None:
    with pytest.raises(NotAuthenticated):
        await access.authenticate(token)


async def test_a_token_of_another_key_is_refused(access: AccessService, database: Database) -> None:
    other = AccessService(database, b"o" * 32, "default")
    await other.add_user("alice")
    token = await other.make_token("alice")

    with pytest.raises(NotAuthenticated):
        await access.authenticate(token.token or "")


async def test_an_unsigned_token_is_refused(access: AccessService) -> None:
    await access.add_user("alice")
    token = (await access.make_token("alice")).token or ""
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()

    with pytest.raises(NotAuthenticated):
        await access.authenticate(".".join([header, token.split(".")[1], ""]))


async def test_a_removed_user_has_no_token_left(access: AccessService) -> None:
    await access.add_user("alice")
    token = await access.make_token("alice")

    await access.remove_user("alice")

    with pytest.raises(NotAuthenticated):
        await access.authenticate(token.token or "")
    with pytest.raises(NotFound):
        await access.user("alice")


async def test_the_last_administrator_stays(access: AccessService) -> None:
    await access.add_user("alice", is_admin=True)
    await access.add_user("boris")

    with pytest.raises(Conflict, match="last administrator"):
        await access.remove_user("alice")

    await access.add_user("carol", is_admin=True)
    await access.remove_user("alice")
    assert [user.name for user in await access.users()] == ["boris", "carol"]
    assert await access.gone() == {"alice"}


async def test_a_name_that_was_never_anybodys_is_not_retired(access: AccessService) -> None:
    with pytest.raises(NotFound):
        await access.remove_user("alice")

    await access.add_user("alice")


@pytest.mark.parametrize(
    ("life", "said"),
    [
        (timedelta(), "at least one second"),
        (timedelta(seconds=1e-6), "at least one second"),
        (timedelta(days=3651), "at most 3650 days"),
    ],
)
async def test_a_life_that_no_token_can_have_is_told(
    access: AccessService, life: timedelta, said: str
) -> None:
    await access.add_user("carol")

    with pytest.raises(InvalidInput, match=said):
        await access.make_token("carol", life=life)


async def test_tokens_of_long_ago_are_forgotten(database: Database) -> None:
    clock = [datetime.now(UTC)]
    access = AccessService(database, KEY, "default", now=lambda: clock[0])
    await access.add_user("alice")
    await access.make_token("alice", life=timedelta(hours=1))
    revoked = await access.make_token("alice")
    await access.revoke_token("alice", revoked.id)
    kept = await access.make_token("alice")
    assert await access.drop_old_tokens() == 0

    clock[0] += timedelta(days=2)

    assert await access.drop_old_tokens() == 2
    assert [token.id for token in await access.tokens("alice")] == [kept.id]


async def test_the_tokens_of_a_job_end_with_it_even_if_that_cannot_be_written(
    held: Held,
) -> None:
    access = AccessService(held, KEY, "default")
    await access.add_user("alice")
    given = await access.pass_token("alice", job="job-1")
    own = await access.make_token("alice")
    await access.authenticate(given.token or "")
    held.loses_answers = True

    with pytest.raises(Unavailable):
        await access.end_tokens_of_jobs(["job-1"])

    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(given.token or "")
    assert (await access.authenticate(own.token or "")).user == "alice"


async def test_names_are_checked_and_taken_once(access: AccessService) -> None:
    await access.add_user("alice")

    with pytest.raises(AlreadyExists):
        await access.add_user("alice")
    with pytest.raises(InvalidInput):
        await access.add_user("Alice!")


async def test_everybody_manages_their_own_and_sees_nothing_else(access: AccessService) -> None:
    await access.add_user("alice")
    token = await access.make_token("alice")
    alice = await access.authenticate(token.token or "")

    alice.require(parse_uri("storage://default/alice/deep/path"), Action.MANAGE)
    with pytest.raises(NotFound):
        alice.require(parse_uri("storage://default/bob"), Action.READ)
    with pytest.raises(NotFound):
        alice.require(parse_uri("cluster://default"), Action.READ)


async def test_an_admin_manages_everything_in_the_cluster(access: AccessService) -> None:
    await access.add_user("alice", is_admin=True)
    token = await access.make_token("alice")
    alice = await access.authenticate(token.token or "")

    alice.require(parse_uri("job://default/bob/job-1"), Action.MANAGE)
    alice.require(parse_uri("cluster://default"), Action.MANAGE)
    with pytest.raises(NotFound):
        alice.require(parse_uri("job://elsewhere/bob"), Action.READ)


async def test_what_may_be_seen_but_not_changed_is_403_material(access: AccessService) -> None:
    await access.add_user("alice")
    token = await access.make_token("alice")
    alice = await access.authenticate(token.token or "")

    with pytest.raises(NotPermitted, match="you have 'read'"):
        alice.require(parse_uri("user://alice"), Action.WRITE)


async def test_a_role_of_ones_own_is_made_once_and_no_other(alice: Client) -> None:
    await alice.permissions.add_role("alice/projects/sweep")

    with pytest.raises(AlreadyExists, match="already exists"):
        await alice.permissions.add_role("alice/projects/sweep")
    with pytest.raises(NotPermitted, match="admins"):
        await alice.permissions.add_role("root/projects/sweep")


async def test_the_owners_login_is_renewed_once_it_has_expired(
    database: Database, tmp_path: Path
) -> None:
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    access = AccessService(database, KEY, "default", now=lambda: clock[0])
    (tmp_path / "run").mkdir()
    login = LoginFile(tmp_path, access, "http://localhost:1/api/v1")
    await login.write()
    before = login.path.read_bytes()
    await login.write()
    assert login.path.read_bytes() == before

    clock[0] += timedelta(days=366)
    await login.write()

    token = json.loads(login.path.read_bytes())["token"]
    assert (await access.authenticate(token)).user == machine_owner()


async def test_tokens_that_are_in_use_stay_known_whatever_others_use(
    access: AccessService, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_CACHED_TOKENS", 4)
    await access.add_user("alice")
    await access.add_user("mallory")
    mine, theirs = [(await access.make_token(it)).token or "" for it in ("alice", "mallory")]
    reads = []
    in_use = tokens.TokensInUse(database, KEY, lambda: datetime.now(UTC), reads.append)
    await in_use.find(mine)
    signed = await in_use.find(theirs)
    scope = Scope(((parse_uri("image://default/mallory"), Action.READ),))
    others = [
        in_use.sign_scoped(signed, scope, timedelta(minutes=number))[0] for number in range(1, 9)
    ]
    assert len({*others}) == 8
    for other in others:
        await in_use.find(other)
        await in_use.find(mine)

    assert len(reads) == 2 + len(others), "nobody looked up alice's token again"
    await in_use.find(others[0])
    assert len(reads) == 3 + len(others), "what nobody used any more was let go"


async def test_the_end_of_a_job_lets_nobody_elses_token_be_looked_up_again(
    access: AccessService, database: Database
) -> None:
    await access.add_user("alice")
    own, of_job, of_other = [
        it.token or ""
        for it in (
            await access.make_token("alice"),
            await access.pass_token("alice", job="job-1"),
            await access.pass_token("alice", job="job-2"),
        )
    ]
    reads: list[int] = []
    in_use = tokens.TokensInUse(database, KEY, lambda: datetime.now(UTC), reads.append)
    _, _, other = [await in_use.find(it) for it in (own, of_job, of_other)]
    scope = Scope(((parse_uri("image://default/alice"), Action.READ),))
    made = in_use.sign_scoped(await in_use.find(of_job), scope, timedelta(minutes=5))[0]
    assert (await in_use.find(made)).job == "job-1"
    assert len(reads) == 4

    in_use.refuse_jobs(["job-1"])

    assert [(await in_use.find(it)).user for it in (own, of_other)] == ["alice", "alice"]
    assert len(reads) == 4
    assert await in_use.find(of_other) == other
    for ended in (of_job, made):
        with pytest.raises(NotAuthenticated, match="revoked"):
            await in_use.find(ended)


async def test_the_next_run_of_a_job_gets_its_token_in_the_change_that_ends_the_last_one(
    held: Held,
) -> None:
    access = AccessService(held, KEY, "default")
    ended: list[str | None] = []
    access.listen(lambda _, token_id: ended.append(token_id))
    await access.add_user("alice")
    first = await access.pass_token("alice", job="job-1")
    assert (await access.authenticate(first.token or "")).token_id == first.id
    held.loses_answers = True

    with pytest.raises(Unavailable):  # and it was made for all that
        await access.pass_token("alice", job="job-1")

    assert ended == [first.id]
    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(first.token or "")
    held.loses_answers = False
    third = await access.pass_token("alice", job="job-1")
    good = [it.id for it in await access.tokens("alice") if it.revoked_at is None]
    assert good == [third.id]
    assert (await access.authenticate(third.token or "")).token_id == third.id


async def test_nobody_who_is_gone_gets_a_token_for_a_job(access: AccessService) -> None:
    with pytest.raises(NotFound):
        await access.pass_token("nobody", job="job-1")

    await access.add_user("nobody")
    given = await access.pass_token("nobody", job="job-1")
    assert (await access.authenticate(given.token or "")).user == "nobody"
