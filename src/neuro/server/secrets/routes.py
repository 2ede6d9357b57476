"""Secrets over HTTP (docs/reference/wire-protocol.md#secrets). No answer has a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from neuro.domain.errors import NotPermitted
from neuro.domain.permissions import Action
from neuro.domain.secrets import (
    RestoreRequest,
    SecretEntry,
    SecretRequest,
    SecretsRotated,
    SecretVersion,
)
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.access.routes import ADMINS_ONLY, require_person
from neuro.server.http.routes import Call, Need, Routes
from neuro.server.secrets.service import Secrets

PATH = "/api/v1/secrets"
ONE = PATH + "/{key}"
SECTION = "secrets"
LISTS = "The list shows what the caller may see."
NAMED = "The secret is named by its key and its owner, who is the caller unless said otherwise."


class OwnerQuery(msgspec.Struct, frozen=True):
    """``owner`` is by default the caller. The other two are clients', and there is one of each."""

    owner: str | None = None
    org_name: str | None = None
    project_name: str | None = None


def secret_routes(
    secrets: Secrets, cluster: str, uses: Callable[[Identity], Mapping[str, list[str]]]
) -> Routes:
    """The routes of secrets.

    ``uses(caller)`` are the active jobs with each secret, by its URI, that a caller may see.
    """
    api = Routes("secrets")

    async def ask(call: Call) -> None:
        call.identity.require(
            ResourceURI("cluster", cluster), Action.MANAGE, hidden=NotPermitted(ADMINS_ONLY)
        )

    def of(call: Call, query: OwnerQuery) -> ResourceURI:
        return secrets.uri(query.owner or call.user, call.segment("key"))

    @api.add("GET", PATH, section=SECTION, inside=LISTS)
    async def list_secrets(call: Call) -> list[SecretEntry]:
        """One's own secrets, and those that were shared, without their values."""
        return await secrets.all(call.identity, uses(call.identity))

    @api.add("POST", PATH, status=201, section=SECTION, inside=NAMED)
    async def put_secret(call: Call, body: SecretRequest) -> SecretVersion:
        """Make a secret, or give it another value."""
        uri = secrets.uri(body.owner or call.user, body.key)
        return await secrets.put(call.identity, uri, body.value)

    @api.add("DELETE", ONE, status=204, section=SECTION, inside=NAMED)
    async def remove_secret(call: Call, query: OwnerQuery) -> None:
        """Remove a secret with all its versions; jobs that have its value keep it."""
        await secrets.remove(call.identity, of(call, query))

    @api.add("GET", ONE + "/versions", section=SECTION, inside=NAMED)
    async def list_versions(call: Call, query: OwnerQuery) -> list[SecretVersion]:
        """The versions of a secret that are kept, newest first, without their values."""
        return await secrets.versions(call.identity, of(call, query))

    @api.add("POST", ONE + "/restore", section=SECTION, inside=NAMED)
    async def restore_secret(call: Call, body: RestoreRequest, query: OwnerQuery) -> SecretVersion:
        """Give a secret the value of an earlier version again, as a new version."""
        return await secrets.restore(call.identity, of(call, query), body.version)

    need = Need("cluster://{cluster}", Action.MANAGE, ask)

    @api.add("POST", "/api/v1/secrets-rotation", needs=need, section=SECTION)
    async def rotate_key(call: Call) -> SecretsRotated:
        """Make a new key of secrets, and encrypt every value with it (admins)."""
        require_person(call)
        return await secrets.rotate()

    return api
