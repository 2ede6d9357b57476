"""Giving and taking back: who may, what it does to the next request, and to roles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from neuro.domain.errors import AlreadyExists, Conflict, InvalidInput, NotFound, NotPermitted
from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.server.access import sharing
from neuro.server.access.grants import Grant, role_uri
from neuro.server.access.identity import Identity
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate

KEY = b"k" * 32
DATA = parse_uri("storage://default/anna/data")
FILE = DATA.child("file")


class House:
    """People of one installation, whose clock can be put forward."""

    def __init__(self, database: Database) -> None:
        self.now = datetime(2026, 6, 1, tzinfo=UTC)
        self.database = database
        self.access = self.another_server()
        self.tokens: dict[str, str] = {}

    def another_server(self) -> AccessService:
        return AccessService(self.database, KEY, "default", now=lambda: self.now)

    async def move_in(self) -> None:
        for name in ("anna", "boris", "carol"):
            await self.access.add_user(name)
        await self.access.add_user("admin", is_admin=True)

    async def caller(self, name: str) -> Identity:
        """Somebody, as the next request knows them."""
        if name not in self.tokens:
            self.tokens[name] = (await self.access.make_token(name)).token or ""
        return await self.access.authenticate(self.tokens[name])

    async def may(self, name: str, uri: ResourceURI = FILE) -> Action | None:
        return (await self.caller(name)).action_on(uri)

    async def share(
        self,
        giver: str,
        subject: str,
        action: Action = Action.READ,
        uri: ResourceURI = DATA,
        days: float | None = None,
    ) -> Action:
        until = None if days is None else self.now + timedelta(days=days)
        grant = Grant(uri, action, until, giver)
        caller = await self.caller(giver)
        (given,) = await self.access.sharing.share(caller, subject, [grant])
        return given.action

    async def revoke(self, giver: str, subject: str, uri: ResourceURI = DATA) -> None:
        await self.access.sharing.revoke(await self.caller(giver), subject, uri)

    async def add_role(self, giver: str, name: str) -> None:
        await self.access.sharing.add_role(await self.caller(giver), name)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    yield database
    database.close()


@pytest.fixture
async def house(database: Database) -> House:
    house = House(database)
    await house.move_in()
    return house


async def test_what_is_shared_holds_from_the_next_request_on_until_it_is_revoked(
    house: House,
) -> None:
    assert await house.may("boris") is None

    assert await house.share("anna", "boris", Action.WRITE) is Action.WRITE
    assert await house.may("boris") is Action.WRITE
    assert await house.may("boris", parse_uri("storage://default/anna/other")) is None
    assert await house.may("carol") is None

    await house.revoke("anna", "boris")
    assert await house.may("boris") is None


async def test_a_share_ends_at_its_time(house: House) -> None:
    await house.share("anna", "boris", Action.WRITE, days=7)
    await house.share("anna", "boris", Action.READ, days=9)
    seen = []
    for _ in range(11):
        seen.append(await house.may("boris"))
        house.now += timedelta(days=1)

    assert seen == [Action.WRITE] * 7 + [Action.READ] * 2 + [None] * 2
    await house.access.sharing.sweep()
    assert await house.access.sharing.shared("anna") == []


async def test_a_share_again_sets_another_end(house: House) -> None:
    await house.share("anna", "boris", days=7)
    await house.share("anna", "boris", days=1)
    house.now += timedelta(days=2)

    assert await house.may("boris") is None


@pytest.mark.parametrize(("days", "error"), [(0, InvalidInput), (-1, InvalidInput)])
async def test_no_share_ends_before_it_begins(
    house: House, days: float, error: type[Exception]
) -> None:
    with pytest.raises(error, match="before it begins"):
        await house.share("anna", "boris", days=days)


@pytest.mark.parametrize(
    ("has", "error"), [(None, NotFound), (Action.READ, NotPermitted), (Action.WRITE, NotPermitted)]
)
async def test_only_who_manages_a_thing_gives_it_on(
    house: House, has: Action | None, error: type[Exception]
) -> None:
    if has is not None:
        await house.share("anna", "boris", has)

    with pytest.raises(error):
        await house.share("boris", "carol")
    with pytest.raises(error):
        await house.revoke("boris", "boris")
    assert await house.may("carol") is None


async def test_a_manager_shares_within_what_they_manage_and_no_longer(house: House) -> None:
    await house.share("anna", "boris", Action.MANAGE, days=7)

    await house.share("boris", "carol", Action.MANAGE, FILE, days=6)
    with pytest.raises(NotPermitted, match="until 2026-06-08 00:00 UTC"):
        await house.share("boris", "carol", Action.READ, days=8)
    with pytest.raises(NotPermitted, match="--expires"):
        await house.share("boris", "carol", Action.READ)
    with pytest.raises(NotFound):
        await house.share("boris", "carol", Action.READ, parse_uri("storage://default/anna"))
    assert await house.may("carol") is Action.MANAGE
    assert await house.may("carol", DATA) is None


async def test_an_administrator_shares_everybodys_things(house: House) -> None:
    await house.share("admin", "boris")

    assert await house.may("boris") is Action.READ
    ((who, grant),) = await house.access.sharing.shared("anna")
    assert (who, grant.by) == ("boris", "admin")


async def test_what_is_shared_already_is_not_narrowed(house: House) -> None:
    await house.share("anna", "boris", Action.WRITE)

    assert await house.share("anna", "boris", Action.READ) is Action.WRITE
    assert await house.share("anna", "anna", Action.READ) is Action.MANAGE


@pytest.mark.parametrize(
    ("first", "then", "kept"),
    [
        (("read", None), ("write", None), {"write": None}),
        (("write", None), ("read", None), {"write": None}),
        (("write", None), ("read", 1), {"write": None}),
        (("read", 3), ("write", 3), {"write": 3}),
        (("write", 3), ("write", None), {"write": None}),
        (("write", None), ("write", 3), {"write": 3}),
        # Each says something that the other does not.
        (("read", None), ("write", 3), {"read": None, "write": 3}),
        (("write", 3), ("read", 4), {"read": 4, "write": 3}),
    ],
)
async def test_a_grant_that_another_one_includes_is_not_kept_beside_it(
    house: House,
    first: tuple[str, float | None],
    then: tuple[str, float | None],
    kept: dict[str, float | None],
) -> None:
    for action, days in (first, then):
        await house.share("anna", "boris", Action(action), days=days)

    shared = [grant for _, grant in await house.access.sharing.shared("anna")]
    assert {
        it.action.value: None if it.until is None else (it.until - house.now).days for it in shared
    } == kept
    assert len(shared) == len(kept)


async def test_a_wider_grant_that_has_ended_is_no_reason_to_keep_a_lesser_one_out(
    house: House,
) -> None:
    await house.share("anna", "boris", Action.WRITE, days=1)
    house.now += timedelta(days=2)

    assert await house.share("anna", "boris", Action.READ, days=1) is Action.READ
    assert await house.may("boris") is Action.READ


async def test_what_comes_with_being_a_user_stays_beside_a_wider_grant(house: House) -> None:
    boris = ResourceURI("user", "boris")
    await house.share("admin", "boris", Action.WRITE, boris)

    held = (await house.caller("boris")).grants.covering(boris)
    assert [it.grant.action for it in held if it.grant.by is None] == [Action.READ]


async def test_everybody_gets_what_is_public(house: House) -> None:
    await house.share("anna", PUBLIC)

    assert [await house.may(name) for name in ("boris", "carol")] == [Action.READ] * 2
    await house.access.add_user("dora")
    assert await house.may("dora") is Action.READ
    await house.revoke("anna", PUBLIC)
    assert [await house.may(name) for name in ("boris", "dora")] == [None] * 2


async def test_who_is_in_a_role_has_what_it_has(house: House) -> None:
    await house.add_role("anna", "anna/roles/team")
    await house.add_role("anna", "anna/roles/readers")
    team, readers = role_uri("anna/roles/team"), role_uri("anna/roles/readers")
    await house.share("anna", "anna/roles/readers")
    await house.share("anna", "anna/roles/team", Action.READ, readers)
    await house.share("anna", "boris", Action.READ, team)

    assert await house.may("boris") is Action.READ
    reasons = (await house.caller("boris")).grants.covering(FILE)
    assert [it.path for it in reasons] == [("anna/roles/team", "anna/roles/readers")]
    assert await house.access.sharing.roles("boris") == ["anna/roles/readers", "anna/roles/team"]

    await house.access.sharing.remove_role(await house.caller("anna"), "anna/roles/readers")
    assert await house.may("boris") is None
    await house.add_role("anna", "anna/roles/readers")
    assert await house.may("boris") is None
    assert await house.access.sharing.roles("boris") == ["anna/roles/team"]


async def test_a_membership_ends_at_its_time(house: House) -> None:
    await house.add_role("anna", "anna/team")
    await house.share("anna", "anna/team")
    await house.share("anna", "boris", Action.READ, role_uri("anna/team"), days=1)
    assert await house.may("boris") is Action.READ

    house.now += timedelta(days=1)

    assert await house.may("boris") is None


async def test_roles_are_not_in_each_other(house: House) -> None:
    a, b, c = "anna/a", "anna/b", "anna/c"
    for role in (a, b, c):
        await house.add_role("anna", role)
    await house.share("anna", a, Action.READ, role_uri(b))
    await house.share("anna", b, Action.READ, role_uri(c))

    for inner, outer in ((c, a), (b, a), (c, b), (a, a)):
        with pytest.raises(InvalidInput, match="in each other"):
            await house.share("anna", inner, Action.READ, role_uri(outer))
    await house.share("anna", a, Action.READ, role_uri(c))


async def test_of_two_who_close_a_circle_at_once_one_is_refused(house: House) -> None:
    for role in ("anna/a", "anna/b"):
        await house.add_role("anna", role)

    done = await asyncio.gather(
        house.share("anna", "anna/a", Action.READ, role_uri("anna/b")),
        house.share("anna", "anna/b", Action.READ, role_uri("anna/a")),
        return_exceptions=True,
    )

    assert sorted(type(it).__name__ for it in done) == ["Action", "InvalidInput"]


async def test_roles_are_made_by_whom_they_are_named_after(house: House) -> None:
    with pytest.raises(NotPermitted, match=r"begin with 'boris/'"):
        await house.add_role("boris", "anna/team")
    await house.add_role("anna", "anna/team")
    with pytest.raises(AlreadyExists, match="already exists"):
        await house.add_role("admin", "anna/team")
    with pytest.raises(NotFound, match='user "nobody" was not found'):
        await house.add_role("admin", "nobody/team")
    with pytest.raises(NotFound, match='role "anna/team" was not found'):
        await house.access.sharing.remove_role(await house.caller("boris"), "anna/team")


@pytest.mark.parametrize("name", ["anna", "anna/", "/team", "anna/a b", "anna/../x", "Anna/team"])
async def test_a_role_has_a_name_of_its_own_form(house: House, name: str) -> None:
    with pytest.raises(InvalidInput, match="role name"):
        await house.add_role("anna", name)


@pytest.mark.parametrize("subject", ["nobody", "anna/nothing"])
async def test_a_name_that_is_not_there_is_told(house: House, subject: str) -> None:
    with pytest.raises(NotFound, match=f'"{subject}" was not found'):
        await house.share("anna", subject)
    with pytest.raises(NotFound, match=f'"{subject}" was not found'):
        await house.revoke("anna", subject)


async def test_what_was_not_given_cannot_be_taken(house: House) -> None:
    await house.share("anna", "boris")

    with pytest.raises(InvalidInput, match="Operation has no effect"):
        await house.revoke("anna", "carol")
    with pytest.raises(InvalidInput, match="Operation has no effect"):
        await house.revoke("anna", "boris", FILE)
    with pytest.raises(InvalidInput, match="comes with being a user"):
        await house.revoke("anna", "anna", parse_uri("storage://default/anna"))
    assert await house.may("anna") is Action.MANAGE


async def test_all_of_a_request_is_given_or_none(house: House) -> None:
    other = parse_uri("storage://default/boris")
    grants = [Grant(DATA, Action.READ, None, "anna"), Grant(other, Action.READ, None, "anna")]

    with pytest.raises(NotFound):
        await house.access.sharing.share(await house.caller("anna"), "carol", grants)
    assert await house.may("carol") is None


async def test_one_subject_has_so_many_grants(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_GRANTS", 12)
    comes_with_being_one = len(await house.access.permissions("boris"))
    for number in range(12 - comes_with_being_one):
        await house.share("anna", "boris", uri=DATA.child(str(number)))

    with pytest.raises(Conflict, match="12 grants, which is the most"):
        await house.share("anna", "boris", uri=FILE)
    assert await house.may("boris", DATA.child("0")) is Action.READ
    assert await house.may("boris") is None


@pytest.mark.parametrize(
    ("subject", "limit"), [("boris", "MAX_BY_ONE"), (PUBLIC, "MAX_PUBLIC_BY_ONE")]
)
async def test_nobody_fills_up_what_others_could_give(
    house: House, monkeypatch: pytest.MonkeyPatch, subject: str, limit: str
) -> None:
    monkeypatch.setattr(sharing, limit, 3)
    for number in range(3):
        await house.share("anna", subject, uri=DATA.child(str(number)))

    with pytest.raises(Conflict, match=f"You have granted '{subject}' 3 things"):
        await house.share("anna", subject, uri=FILE)
    carols = parse_uri("storage://default/carol")
    await house.share("carol", subject, uri=carols)
    assert await house.may("boris", carols) is Action.READ


async def test_what_everybody_has_by_a_role_counts_as_public(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_PUBLIC_BY_ONE", 3)
    sharing_of = house.access.sharing
    for name in ("anna/outer", "anna/inner", "anna/other"):
        await sharing_of.add_role(await house.caller("anna"), name)
    await house.share("anna", "anna/outer", uri=role_uri("anna/inner"))
    await house.share("anna", PUBLIC, uri=role_uri("anna/outer"))
    await house.share("anna", "anna/inner", uri=DATA.child("0"))
    for number in range(4):
        await house.share("anna", "anna/other", uri=DATA.child(str(number)))

    with pytest.raises(Conflict, match=r"role 'anna/inner'\) 3 things, which is the most"):
        await house.share("anna", "anna/inner", uri=FILE)
    with pytest.raises(Conflict, match="You have granted 'public' 3 things"):
        await house.share("anna", PUBLIC, uri=role_uri("anna/other"))
    assert await house.may("boris", DATA.child("0")) is Action.READ
    assert await house.may("boris", DATA.child("1")) is None


async def test_everybody_has_so_many_grants_also_by_roles(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_PUBLIC", 2)
    await house.access.sharing.add_role(await house.caller("anna"), "anna/all")
    await house.share("anna", PUBLIC, uri=role_uri("anna/all"))
    await house.share("anna", "anna/all")

    with pytest.raises(Conflict, match="2 grants, which is the most"):
        await house.share("carol", PUBLIC, uri=parse_uri("storage://default/carol"))


async def test_nobody_fills_up_others_by_many_roles(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_TO_ROLES", 3)
    for owner in ("anna", "admin"):
        for number in range(4):
            await house.access.sharing.add_role(await house.caller("admin"), f"{owner}/{number}")
    for number in range(3):
        await house.share("anna", f"anna/{number}")

    with pytest.raises(Conflict, match="You have granted 3 things to roles, which is the most"):
        await house.share("anna", "anna/3")
    await house.share("anna", "boris")
    for number in range(4):
        await house.share("admin", f"admin/{number}")


@pytest.mark.parametrize("scheme", ["storage://default", "user:/"])
async def test_what_is_shared_has_an_owner_who_can_be(house: House, scheme: str) -> None:
    uri = parse_uri(f"{scheme}/{'a' * 256}")

    with pytest.raises(InvalidInput, match="is not the name of a user"):
        await house.share("admin", "boris", uri=uri)


async def test_a_list_of_what_is_shared_is_whole_or_asked_for_in_parts(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_SHARED", 3)
    await house.share("anna", "boris", days=1)
    await house.share("anna", "boris", uri=DATA.child("x"))
    await house.share("anna", "carol", uri=DATA.child("x"))
    await house.share("anna", "boris", uri=parse_uri("storage://default/anna/data2"))
    await house.share("anna", "boris", uri=parse_uri("job://default/anna/job"))

    async def shared(top: str = "") -> list[tuple[str, str]]:
        found = await house.access.sharing.shared("anna", top)
        return [(who, str(grant.uri).removeprefix(str(DATA))) for who, grant in found]

    with pytest.raises(InvalidInput, match=r"more than 3 grants, .* `neuro acl ls --shared stor"):
        await shared()
    with pytest.raises(InvalidInput, match="more than 3 grants"):
        await shared("storage://")
    below = [("boris", ""), ("boris", "/x"), ("carol", "/x")]
    assert await shared(str(DATA)) == below
    assert await shared("job://") == [("boris", "job://default/anna/job")]
    assert await shared("storage://default/anna/DATA") == []

    # What has ended takes no room of what has not.
    house.now += timedelta(days=2)
    assert await shared("storage://") == [*below[1:], ("boris", "2")]


async def test_so_much_is_shared_at_once(house: House) -> None:
    grants = [Grant(DATA.child(str(number)), Action.READ, None, "anna") for number in range(101)]

    with pytest.raises(InvalidInput, match="100 are the most"):
        await house.access.sharing.share(await house.caller("anna"), "boris", grants)


async def test_who_was_removed_has_nothing_and_what_they_shared_stays(house: House) -> None:
    await house.share("anna", "boris")
    await house.share("boris", "anna", Action.WRITE, parse_uri("storage://default/boris/x"))

    await house.access.remove_user("boris")

    assert await house.access.sharing.shared("anna") == []
    assert await house.may("anna", parse_uri("storage://default/boris/x")) is Action.WRITE


async def test_nobody_is_called_like_everybody(house: House) -> None:
    with pytest.raises(InvalidInput, match="everybody"):
        await house.access.add_user(PUBLIC)


async def test_another_servers_change_is_seen_with_the_next_look_up(house: House) -> None:
    await house.share("anna", "boris")
    other = house.another_server()
    token = (await house.access.make_token("boris")).token or ""
    assert (await other.authenticate(token)).action_on(FILE) is Action.READ

    await house.revoke("anna", "boris")
    await other.identity_of("carol")

    assert (await other.authenticate(token)).action_on(FILE) is None


async def test_what_was_read_before_a_change_is_not_kept_after_it(house: House) -> None:
    await house.share("anna", "boris")
    token = (await house.access.make_token("boris")).token or ""
    access = house.another_server()
    anna = await access.identity_of("anna")
    taken = asyncio.Event()
    read = house.database.read

    async def slow(query: object) -> object:
        result = await read(query)  # type: ignore[arg-type]
        if not taken.is_set() and isinstance(result, tuple) and hasattr(result[0], "held"):
            # The answer is on its way while it is taken back.
            taken.set()
            await access.sharing.revoke(anna, "boris", DATA)
        return result

    house.database.read = slow  # type: ignore[method-assign,assignment]
    assert (await access.authenticate(token)).action_on(FILE) is None
    assert taken.is_set()


async def test_a_change_that_failed_leaves_what_is_known_open_to_doubt(house: House) -> None:
    await house.share("anna", "boris")
    assert await house.may("boris") is Action.READ

    def fail(connection: Connection) -> None:
        raise Conflict("no")

    with pytest.raises(Conflict):
        await house.access.book.change({"boris"}, fail)
    assert house.access.book.known("boris") is None
    assert await house.may("boris") is Action.READ


async def test_what_is_kept_in_memory_is_bounded(house: House) -> None:
    house.access.book._max_held = 40
    for name in ("anna", "boris", "carol", "admin", "anna"):
        await house.access.book.of(name)

    known = house.access.book._known
    assert "anna" in known
    assert sum(len(it.held) for it in known.values()) == house.access.book._held <= 40
