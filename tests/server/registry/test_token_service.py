"""Short-lived tokens for Docker's clients: of whom, for what, and for how long."""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp
import pytest

from neuro.client import Client
from neuro.domain.permissions import Action
from tests.server.registry.client import Answer, Registry, digest_of
from tests.server_process import ServerProcess


class Bearer(Registry):
    """As who shows a token as Bearer."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        super().__init__(session, url, None)
        self._headers["Authorization"] = f"Bearer {token}"


async def _token(registry: Registry, *scopes: str) -> dict[str, Any]:
    query = "&".join(f"scope={scope}" for scope in scopes)
    answer = await registry.ask("GET", f"/v2/token?service=neuro&{query}")
    assert answer.status == 200, answer
    return dict(json.loads(answer.body))


@pytest.fixture
def bearer(server: ServerProcess, session: aiohttp.ClientSession, registry: Registry) -> Any:
    """Makes a caller with a token for some scopes."""

    async def make(*scopes: str, of: Registry = registry) -> Bearer:
        return Bearer(session, server.url, (await _token(of, *scopes))["token"])

    return make


def _challenge(answer: Answer) -> dict[str, str]:
    scheme, _, rest = answer.headers["WWW-Authenticate"].partition(" ")
    assert scheme == "Bearer"
    return dict(re.findall(r'(\w+)="([^"]*)"', rest))


async def test_a_stranger_is_told_where_tokens_are_had_and_for_what(
    server: ServerProcess, session: aiohttp.ClientSession, home: str
) -> None:
    stranger = Registry(session, server.url, None)
    realm = f"{stranger.address}/v2/token"
    scopes = {
        ("GET", "/v2/"): None,
        ("GET", "/v2/_catalog"): "registry:catalog:*",
        ("GET", f"/v2/{home}/manifests/v1"): f"repository:{home}:pull",
        ("POST", f"/v2/{home}/blobs/uploads/"): f"repository:{home}:pull,push,delete",
        ("POST", f"/v2/{home}/blobs/uploads/?mount=x&from=anna/base"): (
            f"repository:{home}:pull,push,delete repository:anna/base:pull"
        ),
        ("GET", '/v2/"a"/manifests/v1'): None,
        ("GET", f"/v2/{home}/{5000 * 'a'}/manifests/v1"): None,
        ("POST", f"/v2/{home}/blobs/uploads/?from=a/b%20a/c%20a/d%20a/e%20a/f%20a/g%20a/h%20a/i"): (
            f"repository:{home}:pull,push,delete"
        ),
    }

    for (method, path), scope in scopes.items():
        answer = await stranger.ask(method, path)

        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        expected = {"realm": realm, "service": "neuro"} | ({"scope": scope} if scope else {})
        assert _challenge(answer) == expected
    unnamed = await stranger.ask("GET", "/v2/", Host='"x')
    assert unnamed.status == 401
    assert unnamed.headers["WWW-Authenticate"].startswith("Basic ")


async def test_who_shows_no_token_of_the_platform_gets_none(
    server: ServerProcess, session: aiohttp.ClientSession
) -> None:
    for token in (None, "not.a.token"):
        answer = await Registry(session, server.url, token).ask("GET", "/v2/token")

        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_token_is_for_its_scopes_alone(registry: Registry, home: str, bearer: Any) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    await registry.push_image(f"{home}-other", "v1", [b"layer"])
    reader = await bearer(f"repository:{home}:pull")

    assert (await reader.ask("GET", "/v2/")).status == 200
    assert (await reader.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    for method, path, scope in (
        ("GET", f"/v2/{home}-other/manifests/v1", f"repository:{home}-other:pull"),
        ("POST", f"/v2/{home}/blobs/uploads/", f"repository:{home}:pull,push,delete"),
        ("DELETE", f"/v2/{home}/manifests/v1", f"repository:{home}:pull,push,delete"),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
    ):
        refused = await reader.ask(method, path)
        assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
        asked = _challenge(refused)
        assert (asked["scope"], asked["error"]) == (scope, "insufficient_scope")
        again = await bearer(*asked["scope"].split(" "))
        assert (await again.ask(method, path)).status < 300


async def test_a_token_pushes_and_mounts(
    registry: Registry, alices: Registry, home: str, bearer: Any
) -> None:
    content = b"a layer that is there"
    await registry.push_image(home, "v1", [content])
    target = f"{home}-target"
    mount = f"/v2/{target}/blobs/uploads/?mount={digest_of(content)}&from={home}"
    writer = await bearer(f"repository:{target}:pull,push")

    await writer.push_image(target, "v1", [b"another"])
    refused = await writer.ask("POST", mount)

    assert (refused.status, _challenge(refused)["error"]) == (401, "insufficient_scope")
    both = await bearer(*_challenge(refused)["scope"].split(" "))
    assert (await both.ask("POST", mount)).status == 201
    theirs = await bearer("repository:alice/a:pull,push", of=alices)
    assert (await theirs.ask("POST", mount.replace(target, "alice/a"))).status == 202


async def test_a_token_gives_no_more_than_its_owner_has(
    registry: Registry, alices: Registry, home: str, bearer: Any, client: Client
) -> None:
    await registry.push_image(home, "v1", [b"layer"])
    wanted = f"repository:{home}:pull,push"

    hidden = await bearer(wanted, of=alices)
    assert (await _token(alices, wanted))["scope"] == ""
    assert (await hidden.ask("GET", f"/v2/{home}/manifests/v1")).status == 404
    await client.permissions.share(f"image://default/{home}", "alice", Action.READ)
    reader = await bearer(wanted, of=alices)

    assert (await _token(alices, wanted))["scope"] == f"repository:{home}:pull"
    assert (await reader.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    refused = await reader.ask("POST", f"/v2/{home}/blobs/uploads/")
    assert (refused.status, refused.code) == (403, "DENIED")
    await client.permissions.revoke(f"image://default/{home}", "alice")
    assert (await reader.ask("GET", f"/v2/{home}/manifests/v1")).status == 404


async def test_a_token_ends_with_the_one_that_it_was_made_of(
    server: ServerProcess,
    session: aiohttp.ClientSession,
    client: Client,
    alice: Client,
    bearer: Any,
) -> None:
    token = await client.users.create_token(alice.user)
    made = await bearer(
        "repository:alice/a:pull,push", of=Registry(session, server.url, token.token)
    )
    assert (await made.ask("GET", "/v2/")).status == 200

    await client.users.revoke_token(alice.user, token.id)

    refused = await made.ask("GET", "/v2/")
    assert (refused.status, _challenge(refused)["error"]) == (401, "invalid_token")


async def test_a_token_makes_no_other_and_opens_nothing_else(
    server: ServerProcess, session: aiohttp.ClientSession, registry: Registry, home: str
) -> None:
    token = (await _token(registry, f"repository:{home}:pull"))["token"]

    for caller in (Bearer(session, server.url, token), Registry(session, server.url, token)):
        assert (await caller.ask("GET", "/v2/token")).status == 401
        assert (await caller.ask("GET", "/v2/")).status == 200
    assert (await Bearer(session, server.url, token).ask("GET", "/api/v1/jobs")).status == 401


async def test_a_form_of_oauth_2_gets_the_same(
    server: ServerProcess, session: aiohttp.ClientSession, registry: Registry, home: str
) -> None:
    await registry.push_image(home, "v1", [])
    stranger = Registry(session, server.url, None)
    form = {"service": "neuro", "client_id": "tests", "scope": f"repository:{home}:pull"}
    good = (
        {"grant_type": "password", "username": "anybody", "password": server.token},
        {"grant_type": "refresh_token", "refresh_token": server.token},
    )

    for grant in good:
        answer = await stranger.ask("POST", "/v2/token", form | grant)
        token = json.loads(answer.body)["access_token"]
        reader = Bearer(session, server.url, token)
        assert (await reader.ask("GET", f"/v2/{home}/manifests/v1")).status == 200
    for grant, status in (
        ({"grant_type": "password", "password": "wrong"}, 401),
        ({"grant_type": "password"}, 401),
        ({"grant_type": "device"}, 400),
    ):
        assert (await stranger.ask("POST", "/v2/token", form | grant)).status == status
    many = {"scope": " ".join(f"repository:a/a{n}:pull" for n in range(9))}
    assert (await stranger.ask("POST", "/v2/token", form | good[0] | many)).status == 400
