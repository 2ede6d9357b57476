"""Jobs in images of the platform's own registry: who may, and with what these are pulled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import msgspec
import pytest

from neuro.client import Client
from neuro.domain.errors import NotAuthenticated, NotFound, NotPermitted
from neuro.domain.jobs import JobRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.engines.base import PullCredentials, RunSpec
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity, RegistryIdentity
from neuro.server.access.scopes import Scope
from neuro.server.access.service import IMAGE_TOKEN_LIFE, PUSH_TOKEN_LIFE, AccessService
from neuro.server.database.engine import Database
from neuro.server.jobs.launch import Launcher
from neuro.server.jobs.plan import Draft, Offer, Planned, Refused, plan
from neuro.server.storage.service import StorageService
from tests.server.jobs import no_secret_values
from tests.server_process import ServerProcess

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OFFER = Offer("default", [Preset(name="small", cpu=1, memory=GIB, engine="e")], "e", "", str)
TRAINER = parse_uri("image://default/boris/trainer")


def planned(image: str, *, may: Action | None) -> Planned | Refused:
    held = [Permission(ResourceURI("job", "default", ("anna",)), Action.WRITE)]
    if may is not None:
        held.append(Permission(TRAINER, may))
    caller = Identity("anna", Grants.of(held), "t")
    draft = Draft(JobRequest(image=image), False, "job-1", NOW)
    return plan(draft, caller, OFFER, {"e": Amount(cpu=4, memory=8 * GIB)})


def test_whoever_may_read_an_image_may_run_it() -> None:
    accepted = planned("image:/boris/trainer:v1", may=Action.READ)

    assert isinstance(accepted, Planned)
    container = accepted.record.specification.container
    assert container.image == "image://default/boris/trainer:v1"


@pytest.mark.parametrize("image", ["image:/boris/trainer:v1", "image:/boris/other"])
def test_an_image_that_one_may_not_read_does_not_exist(image: str) -> None:
    may = None if image.endswith("v1") else Action.READ

    refused = planned(image, may=may)

    assert isinstance(refused, Refused)
    assert isinstance(refused.error(), NotFound)
    assert image.partition(":v1")[0].replace("image:/", "image://default/") in str(refused.error())


async def spec_of(image: str, folder: Any, *mirrors: str) -> RunSpec:
    accepted = planned(image, may=Action.READ)
    assert isinstance(accepted, Planned)
    launcher = Launcher(
        "default",
        StorageService(folder, "default"),
        lambda record: asyncio.sleep(0, ""),
        str,
        "",
        image_token=lambda user, uri: f"{user} {uri}",
        registry="127.0.0.1:8085",
        mirrors=mirrors,
        secrets=no_secret_values,
    )
    return await launcher.make_spec(accepted.record)


async def test_an_engine_pulls_it_from_the_platform_in_the_name_of_the_owner(
    tmp_path: Any,
) -> None:
    spec = await spec_of("image:/boris/trainer:v1", tmp_path)

    assert spec.image == "127.0.0.1:8085/boris/trainer:v1"
    assert spec.pull == PullCredentials("token", "anna image://default/boris/trainer")


async def test_other_registries_are_shown_no_token(tmp_path: Any) -> None:
    spec = await spec_of("ghcr.io/boris/trainer:v1", tmp_path)

    assert (spec.image, spec.pull) == ("ghcr.io/boris/trainer:v1", None)


@pytest.mark.parametrize(
    ("image", "path"),
    [
        ("debian", "docker.io/library/debian:latest"),
        ("docker.io/anna/trainer:v1", "docker.io/anna/trainer:v1"),
        ("ghcr.io/anna/trainer:v1", None),
        ("host:latest", None),
        ("neuro/base:v1", None),
        ("neuro/executor:latest", None),
    ],
)
async def test_an_image_of_a_mirrored_registry_comes_through_the_platforms_own(
    image: str, path: str | None, tmp_path: Any
) -> None:
    spec = await spec_of(image, tmp_path, "docker.io")

    if path is None:
        assert (spec.image, spec.pull, spec.mirror_of) == (image, None, "")
    else:
        name = path.rpartition(":")[0]
        assert (spec.image, spec.mirror_of) == (f"127.0.0.1:8085/{path}", "docker.io")
        assert spec.pull == PullCredentials("token", f"anna image://default/{name}")


async def test_by_the_host_of_the_registry_it_is_pulled_in_the_name_of_the_owner_as_well(
    tmp_path: Any,
) -> None:
    """The daemon may have it of somebody else's job, and asks nobody who names it so."""
    spec = await spec_of("127.0.0.1:8085/boris/trainer:v1", tmp_path)

    assert spec.image == "127.0.0.1:8085/boris/trainer:v1"
    assert spec.pull == PullCredentials("token", "anna image://default/boris/trainer")


class House:
    """An installation whose clock can be put forward."""

    def __init__(self, database: Database) -> None:
        self.now = NOW
        self.access = AccessService(database, b"k" * 32, "default", now=lambda: self.now)


@pytest.fixture
async def house(database: Database) -> House:
    house = House(database)
    for name in ("anna", "boris"):
        await house.access.add_user(name)
    return house


async def test_its_token_allows_to_pull_that_image_and_nothing_else(house: House) -> None:
    mine = parse_uri("image://default/anna/trainer")

    caller = await house.access.authenticate(house.access.image_token("anna", mine))

    assert caller.user == "anna"
    assert isinstance(caller, RegistryIdentity)
    assert caller.action_on(mine) is Action.READ
    with pytest.raises(NotPermitted):
        caller.require(mine, Action.WRITE)
    for other in ("image://default/anna/other", "storage://default/anna", "user://anna"):
        assert caller.action_on(parse_uri(other)) is None
    assert caller.scope("job", "default").owners == frozenset()


async def test_its_token_allows_no_more_than_the_owner_may(house: House) -> None:
    caller = await house.access.authenticate(house.access.image_token("anna", TRAINER))

    assert caller.action_on(TRAINER) is None


async def test_a_scoped_token_allows_no_more_than_the_one_that_it_was_made_of(
    house: House,
) -> None:
    mine, other = parse_uri("image://default/anna/trainer"), parse_uri("image://default/anna/x")
    wanted = Scope(((mine, Action.WRITE), (other, Action.READ), (TRAINER, Action.READ)))

    text, scope, _ = await house.access.scoped_token(house.access.image_token("anna", mine), wanted)
    caller = await house.access.authenticate(text)

    assert scope == Scope(((mine, Action.READ),))
    assert caller.action_on(mine) is Action.READ
    assert caller.action_on(other) is None
    with pytest.raises(NotPermitted):
        caller.require(mine, Action.WRITE)
    with pytest.raises(NotAuthenticated):
        await house.access.scoped_token(text, wanted)


async def test_its_token_ends_soon(house: House) -> None:
    token = house.access.image_token("anna", TRAINER)
    house.now += IMAGE_TOKEN_LIFE + timedelta(seconds=1)

    with pytest.raises(NotAuthenticated, match="expired"):
        await house.access.authenticate(token)


async def test_a_token_to_push_allows_to_write_that_image_and_nothing_else(house: House) -> None:
    mine = parse_uri("image://default/anna/trainer")
    token = house.access.push_token("anna", mine, None)

    caller = await house.access.authenticate(token)

    assert isinstance(caller, RegistryIdentity)
    assert caller.action_on(mine) is Action.WRITE
    for other in ("image://default/anna/other", "storage://default/anna", "user://anna"):
        assert caller.action_on(parse_uri(other)) is None
    theirs = await house.access.authenticate(house.access.push_token("anna", TRAINER, None))
    assert theirs.action_on(TRAINER) is None
    house.now += PUSH_TOKEN_LIFE + timedelta(seconds=1)
    with pytest.raises(NotAuthenticated, match="expired"):
        await house.access.authenticate(token)


async def test_with_a_token_to_push_the_base_can_be_read_by_who_may(house: House) -> None:
    mine, base = (parse_uri(f"image://default/anna/{name}") for name in ("trainer", "base"))

    caller = await house.access.authenticate(house.access.push_token("anna", mine, base))
    other = await house.access.authenticate(house.access.push_token("anna", mine, TRAINER))

    assert (caller.action_on(mine), caller.action_on(base)) == (Action.WRITE, Action.READ)
    assert other.action_on(TRAINER) is None


async def test_an_image_is_known_by_the_host_that_the_client_knows(
    client: Client, server: ServerProcess
) -> None:
    host = server.url.split("/")[2]
    request = JobRequest(image=f"{host}/{server.user}/trainer:v1", command="true")

    job = (await client.jobs.submit(request)).job

    assert job.container.image == f"image://default/{server.user}/trainer:v1"


async def test_a_nested_request_is_understood_likewise(server: ServerProcess) -> None:
    host = server.url.split("/")[2]
    container = {"image": f"{host}/nobody/trainer:v1", "resources": {"cpu": 1, "memory": GIB}}
    headers = {"Authorization": f"Bearer {server.token}"}

    async with aiohttp.ClientSession(headers=headers) as http:
        body = msgspec.json.encode({"container": container})
        async with http.post(f"{server.url}/jobs", data=body) as response:
            answer = await response.json()

    assert answer["container"]["image"] == "image://default/nobody/trainer:v1"
