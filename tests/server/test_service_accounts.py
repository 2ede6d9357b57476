"""Service accounts: whose they are, what they may do, and how they end."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.errors import (
    AlreadyExists,
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
)
from neuro.domain.jobs import JobStatus
from neuro.domain.permissions import Action
from neuro.domain.service_accounts import ServiceAccountRequest
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.server.access import service_accounts
from neuro.server.access.grants import Grant
from neuro.server.access.service import AccessService
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.jobs.record import host_label
from tests.server.jobs import finished, running
from tests.server.test_job_events import record
from tests.server_process import ServerProcess

ROBOT = ServiceAccountRequest(name="robot")
EMPTY = ServiceAccountRequest()
FILES = parse_uri("storage://default/anna--robot/data")


@pytest.fixture
async def access(database_url: str) -> AsyncIterator[AccessService]:
    database = Database(database_url)
    migrate(database)
    access = AccessService(database, b"k" * 32, "default")
    await access.add_user("anna")
    await access.add_user("root", is_admin=True)
    yield access
    database.close()


async def _may(access: AccessService, user: str, uri: ResourceURI) -> Action | None:
    return (await access.identity_of(user)).action_on(uri)


async def test_an_account_owns_what_is_its_and_nothing_of_its_owners(
    access: AccessService,
) -> None:
    account, token = await access.service_accounts.create("anna", ROBOT)

    caller = await access.authenticate(token)
    assert (account.role, caller.user) == ("anna--robot", "anna--robot")
    assert caller.action_on(FILES) is Action.MANAGE
    assert caller.action_on(parse_uri("storage://default/anna")) is None
    assert await _may(access, "anna", FILES) is Action.MANAGE
    assert await _may(access, "anna", parse_uri("user://anna--robot")) is Action.MANAGE


async def test_accounts_are_no_people(access: AccessService) -> None:
    await access.service_accounts.create("anna", ROBOT)

    assert [user.name for user in await access.users()] == ["anna", "root"]


async def test_an_account_may_do_what_it_is_granted_until_that_is_taken(
    access: AccessService,
) -> None:
    account, token = await access.service_accounts.create("anna", ROBOT)
    data = parse_uri("storage://default/anna/data")
    anna = await access.identity_of("anna")

    await access.sharing.share(anna, account.role, [Grant(data, Action.WRITE, by="anna")])
    assert (await access.authenticate(token)).action_on(data) is Action.WRITE
    await access.sharing.revoke(anna, account.role, data)
    assert (await access.authenticate(token)).action_on(data) is None


async def test_with_an_account_go_its_token_and_its_owners_rights(access: AccessService) -> None:
    account, token = await access.service_accounts.create("anna", ROBOT)
    ended: list[tuple[str, str | None]] = []
    access.listen(lambda user, token_id: ended.append((user, token_id)))
    await access.authenticate(token)

    assert await access.remove_user(account.role) == [account.role]

    assert ended == [(account.role, None)]
    with pytest.raises(NotAuthenticated, match="revoked"):
        await access.authenticate(token)
    assert await _may(access, "anna", FILES) is None
    assert await access.service_accounts.of("anna") == []


async def test_whoever_goes_takes_their_accounts_along(access: AccessService) -> None:
    made = [await access.service_accounts.create("anna", it) for it in (ROBOT, EMPTY)]
    ended: list[str] = []
    access.listen(lambda user, _: ended.append(user))

    gone = await access.remove_user("anna")

    names = {"anna", *(account.role for account, _ in made)}
    assert (set(gone), set(ended), await access.gone()) == (names, names, names)
    for _, token in made:
        with pytest.raises(NotAuthenticated):
            await access.authenticate(token)


@pytest.mark.parametrize("subject", ["boris", "public"])
async def test_what_an_account_has_shared_ends_with_it(access: AccessService, subject: str) -> None:
    await access.add_user("boris")
    account, _ = await access.service_accounts.create("anna", ROBOT)
    anna = await access.identity_of("anna")
    kept = parse_uri("storage://default/anna/data")
    await access.sharing.share(anna, subject, [Grant(FILES, Action.READ, by="anna")])
    await access.sharing.share(anna, subject, [Grant(kept, Action.READ, by="anna")])
    assert await _may(access, "boris", FILES) is Action.READ

    await access.remove_user(account.role)
    assert await _may(access, "boris", FILES) is None
    await access.forget_accounts([account.role])
    await access.service_accounts.create("anna", ROBOT)

    # Another account may have the name: nobody has a share of what is its.
    assert await _may(access, "boris", FILES) is None
    assert await _may(access, "boris", kept) is Action.READ


async def test_an_account_of_the_name_of_a_former_one_has_its_files(access: AccessService) -> None:
    first, _ = await access.service_accounts.create("anna", ROBOT)
    await access.remove_user(first.role)
    root = await access.identity_of("root")
    own = FILES.segments[0]
    home = ResourceURI("storage", "default", (own,))
    await access.sharing.share(root, "anna", [Grant(home, Action.MANAGE, by="root")])

    with pytest.raises(Conflict, match="still being ended"):
        await access.service_accounts.create("anna", ROBOT)
    await access.forget_accounts([first.role, "anna"])
    second, token = await access.service_accounts.create("anna", ROBOT)

    assert (second.role, second.id == first.id) == (first.role, False)
    assert (await access.authenticate(token)).action_on(FILES) is Action.MANAGE
    assert await _may(access, "anna", FILES) is Action.MANAGE


async def test_an_account_is_found_by_id_or_by_the_owners_name_for_it(
    access: AccessService,
) -> None:
    account, _ = await access.service_accounts.create("anna", ROBOT)
    anna, root = await access.identity_of("anna"), await access.identity_of("root")
    find = access.service_accounts.find

    for name in (account.id, "robot"):
        assert await find(anna, Action.MANAGE, name) == account
    assert await find(root, Action.MANAGE, account.id) == account
    for name in ("robot", "anna--robot", ""):
        with pytest.raises(NotFound, match="Service account"):
            await find(root, Action.READ, name)


async def test_who_reads_an_account_may_not_remove_it(access: AccessService) -> None:
    account, _ = await access.service_accounts.create("anna", ROBOT)
    await access.add_user("boris")
    anna, uri = await access.identity_of("anna"), ResourceURI("user", account.role)
    await access.sharing.share(anna, "boris", [Grant(uri, Action.READ, by="anna")])
    boris = await access.identity_of("boris")

    assert await access.service_accounts.find(boris, Action.READ, account.id) == account
    with pytest.raises(NotPermitted):
        await access.service_accounts.find(boris, Action.MANAGE, account.id)


async def test_names_are_the_owners_own(access: AccessService) -> None:
    await access.add_user("boris")
    create = access.service_accounts.create
    for owner in ("anna", "boris"):
        await create(owner, ROBOT)
    nameless = [await create("anna", EMPTY) for _ in range(2)]

    assert len({account.role for account, _ in nameless}) == 2
    with pytest.raises(AlreadyExists, match="'robot' already"):
        await create("anna", ROBOT)
    with pytest.raises(InvalidInput, match="lower-case"):
        await create("anna", ServiceAccountRequest(name="a--b"))
    with pytest.raises(InvalidInput, match="Cluster 'other' is unknown"):
        await create("anna", ServiceAccountRequest(name="bot", default_cluster="other"))
    with pytest.raises(NotFound):
        await create("nobody", ROBOT)


async def test_one_person_has_so_many(
    access: AccessService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_accounts, "MAX_ACCOUNTS", 1)
    await access.service_accounts.create("anna", ROBOT)

    with pytest.raises(Conflict, match="which is the most"):
        await access.service_accounts.create("anna", EMPTY)


async def test_no_person_can_be_called_like_an_account(access: AccessService) -> None:
    with pytest.raises(InvalidInput):
        await access.add_user("anna--robot")


def test_a_job_has_no_host_name_that_is_too_long_for_one() -> None:
    longest, owner = "j" * 40, "o" * 21

    assert host_label(record(owner=owner, name=longest)) == f"{longest}--{owner}"
    assert host_label(record(owner=f"{owner}--robot", name=longest)) is None
    assert host_label(record(owner=owner)) is None


@dataclass(frozen=True)
class Wire:
    """Calls of one person."""

    url: str
    token: str

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.request(method, self.url + path, json=body) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
async def person(client: Client, server: ServerProcess) -> tuple[str, Wire]:
    name = f"p-{secrets.token_hex(4)}"
    await client.users.add(name)
    token = await client.users.create_token(name)
    return name, Wire(server.url, token.token or "")


async def test_clients_log_in_with_the_token_and_run_jobs_that_end_with_the_account(
    person: tuple[str, Wire], client: Client
) -> None:
    name, wire = person
    asked = {"name": "ci", "default_cluster": "default", "default_project": "lab"}

    status, made = await wire.ask("POST", "/service_accounts", asked)

    assert status == 200
    login = json.loads(base64.b64decode(made.pop("token")))
    assert (login["cluster"], login["url"]) == ("default", wire.url)
    assert datetime.fromisoformat(made["created_at"]).tzinfo is not None
    known = {key: made[key] for key in ("name", "owner", "role", "default_cluster")}
    assert known == {
        "name": "ci",
        "owner": name,
        "role": f"{name}--ci",
        "default_cluster": "default",
    }
    assert (made["default_project"], made["default_org"]) == ("lab", None)
    assert await wire.ask("GET", "/service_accounts") == (200, [made])
    assert await wire.ask("GET", "/service_accounts/ci") == (200, made)
    async with (
        Client.connect(wire.url, login["token"]) as account,
        Client.connect(wire.url, wire.token) as owner,
    ):
        config = await account.config()
        assert config.user_name == f"{name}--ci"
        job = await running(account, "sleep 1000")
        assert job.owner == f"{name}--ci"
        assert (await owner.jobs.get(job.id)).owner == job.owner

        assert await wire.ask("DELETE", f"/service_accounts/{made['id']}") == (204, None)

        assert (await wire.ask("GET", "/service_accounts/ci"))[0] == 404
        with pytest.raises(NotAuthenticated):
            await account.config()
    assert (await finished(client, job)).status is JobStatus.CANCELLED


async def test_an_account_makes_nothing_that_outlives_it(person: tuple[str, Wire]) -> None:
    name, wire = person
    _, made = await wire.ask("POST", "/service_accounts", {"name": "ci"})
    role = made["role"]
    robot = Wire(wire.url, json.loads(base64.b64decode(made["token"]))["token"])
    given = [{"uri": f"storage://default/{role}", "action": "read"}]

    for method, path, body in (
        ("POST", f"/users/{role}/tokens", {"label": "more"}),
        ("POST", f"/users/{name}/permissions", given),
        ("POST", "/users", {"name": f"{role}/team"}),
        ("POST", "/service_accounts", {"name": "child"}),
    ):
        status, answer = await robot.ask(method, path, body)
        assert status == 403, (path, answer)
        assert f"service account {role}" in answer["error"]
