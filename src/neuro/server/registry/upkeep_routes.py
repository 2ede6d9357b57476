"""What owners and administrators ask about images: rules, tags, quotas, what is on the disk.

See docs/reference/wire-protocol.md#images.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from neuro.domain.errors import InvalidInput, NotPermitted
from neuro.domain.image_upkeep import (
    ImageQuota,
    ImageQuotaRequest,
    ImageRules,
    ImageRulesInForce,
    ImageTag,
)
from neuro.domain.permissions import Action
from neuro.domain.sizes import MOST
from neuro.domain.uris import ResourceURI
from neuro.server.access.routes import ADMINS_ONLY
from neuro.server.access.sharing import unknown
from neuro.server.http.routes import Call, Need, Routes
from neuro.server.http.streams import NDJSON, ndjson
from neuro.server.registry.census import Census
from neuro.server.registry.names import Repository, parse_prefix, parse_repository
from neuro.server.registry.scrub import Scrub
from neuro.server.registry.service import PAGE, RegistryService
from neuro.server.registry.upkeep import Upkeep

SECTION = "images"
_MOST_TAGS = 100
_TOP = "/api/v1/images"
_RULES = _TOP + "/rules/{name:.+}"
_QUOTA = _TOP + "/quotas/{owner}"


class Behind(msgspec.Struct, frozen=True):
    """A page of a list: at most ``limit``, of what comes behind ``after``."""

    after: str = ""
    limit: int = PAGE


def upkeep_routes(service: RegistryService, upkeep: Upkeep, census: Census, scrub: Scrub) -> Routes:
    """The routes of images that clients of registries do not know."""
    api = Routes("registry")
    cluster = ResourceURI("cluster", service.cluster)

    def need(action: Action, parse: Callable[[str], Repository]) -> Need:
        async def ask(call: Call) -> Repository:
            found = parse(call.segment("name"))
            service.authorize(call.identity, found, action)
            return found

        return Need("image://{cluster}/{name}", action, ask)

    async def ask_for_cluster(call: Call) -> None:
        call.identity.require(cluster, Action.MANAGE, hidden=NotPermitted(ADMINS_ONLY))

    async def ask_for_owner(call: Call) -> Repository:
        """One may ask this about oneself, an administrator about anybody."""
        owner = parse_prefix(call.segment("owner"))
        if call.user != owner.path:
            call.identity.require(cluster, Action.MANAGE, hidden=unknown(owner.path))
        return owner

    admins = Need("cluster://{cluster}", Action.MANAGE, ask_for_cluster)
    owners = Need("user://{owner}", Action.MANAGE, ask_for_owner)

    @api.add("GET", _TOP + "/files", needs=admins, section=SECTION, streams=NDJSON)
    async def list_files(call: Call) -> web.StreamResponse:
        """Every file of the registry, and why it is there (admins)."""
        return await ndjson(call, (msgspec.json.encode(one) async for one in census.all()))

    @api.add("POST", _TOP + "/scrub", needs=admins, section=SECTION, streams=NDJSON)
    async def scrub_files(call: Call) -> web.StreamResponse:
        """Read every blob again, and take away those that have rotted (admins)."""
        return await ndjson(call, (msgspec.json.encode(one) async for one in scrub.all()))

    @api.add(
        "GET",
        _TOP + "/tags/{name:.+}",
        needs=need(Action.READ, parse_repository),
        section=SECTION,
    )
    async def tags_of_image(call: Call, query: Behind) -> list[ImageTag]:
        """Tags by name, with when they were pushed and pulled."""
        return await upkeep.tags(call.found, query.after, min(_limit(query), _MOST_TAGS))

    @api.add("GET", _RULES, needs=need(Action.READ, parse_prefix), section=SECTION)
    async def get_rules(call: Call) -> ImageRulesInForce:
        """The rules that hold for an image, or for all whose names begin so."""
        return await upkeep.rules(call.found)

    @api.add("PUT", _RULES, status=204, needs=need(Action.MANAGE, parse_prefix), section=SECTION)
    async def set_rules(call: Call, body: ImageRules) -> None:
        """Let rules hold in place of those that there were of this name."""
        await upkeep.set_rules(call.found, body)

    @api.add("DELETE", _RULES, status=204, needs=need(Action.MANAGE, parse_prefix), section=SECTION)
    async def remove_rules(call: Call) -> None:
        """Let the rules of this name hold no more."""
        await upkeep.remove_rules(call.found)

    @api.add("GET", _TOP + "/quotas", needs=admins, section=SECTION)
    async def list_quotas(call: Call, query: Behind) -> list[ImageQuota]:
        """How much everybody's images take, by owner (admins)."""
        return await service.quotas(query.after, _limit(query))

    @api.add("GET", _QUOTA, needs=owners, section=SECTION)
    async def get_quota(call: Call) -> ImageQuota:
        """How much somebody's images may take, and do take."""
        return await service.quota(call.found)

    @api.add("PUT", _QUOTA, needs=admins, section=SECTION)
    async def set_quota(call: Call, body: ImageQuotaRequest) -> ImageQuota:
        """Say how much somebody's images may take (admins)."""
        owner = parse_prefix(call.segment("owner"))
        if body.size is not None and not 0 <= body.size <= MOST:
            raise InvalidInput(f"size is {body.size}: give bytes, from 0 to {MOST}.")
        return await service.set_quota(owner, body.size)

    return api


def _limit(query: Behind) -> int:
    return max(1, min(query.limit, PAGE))
