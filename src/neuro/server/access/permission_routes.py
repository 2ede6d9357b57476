"""Sharing over HTTP (docs/reference/wire-protocol.md#permissions)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from neuro.domain.errors import InvalidInput, NotPermitted
from neuro.domain.names import is_role
from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import (
    CLUSTER_SCHEMES,
    GLOBAL_SCHEMES,
    ResourceURI,
    parse_uri,
    typed_text,
)
from neuro.domain.users import Explanation, PermissionEntry, ShareRequest, Subroles
from neuro.server.access.grants import Grant, Grants, Held, role_uri
from neuro.server.access.routes import require_person, subject_of
from neuro.server.access.sharing import Sharing
from neuro.server.http.routes import Call, Routes

PATH = "/api/v1/users/{user}/permissions"
SECTION = "permissions"
INSIDE = "What is asked depends on the URIs in the request, and on whether it is about oneself."


class PermissionFilter(msgspec.Struct, frozen=True):
    """``uri`` is a whole one, or a scheme alone (``storage:``)."""

    uri: str = ""


class ExplainQuery(msgspec.Struct, frozen=True):
    uri: str


class RevokeQuery(msgspec.Struct, frozen=True):
    uri: str


def permission_routes(sharing: Sharing, cluster: str) -> Routes:
    """The routes of grants and roles."""
    api = Routes("permissions", inside=INSIDE)
    the_cluster = ResourceURI("cluster", cluster)

    async def held_for(call: Call, subject: str) -> list[Held]:
        """What a subject holds, for one who may know it."""
        held = await sharing.held(subject)
        if subject not in (call.user, PUBLIC):
            uri = role_uri(subject) if is_role(subject) else the_cluster
            needed = Action.READ if is_role(subject) else Action.MANAGE
            call.identity.require(
                uri, needed, hidden=NotPermitted(f"You may not know what '{subject}' may do.")
            )
        return held

    @api.add("GET", PATH, section=SECTION)
    async def list_permissions(call: Call, query: PermissionFilter) -> list[PermissionEntry]:
        """What a user or a role may do: one's own, or anybody's for admins."""
        held = await held_for(call, subject_of(call))
        shown = {entry.uri: entry for entry in map(_entry, reversed(_widest(held)))}
        entries = sorted(shown.values(), key=lambda it: it.uri)
        if not query.uri:
            return entries
        wanted = _filter(query.uri)
        if isinstance(wanted, ResourceURI):
            covering = Grants(held).covering(wanted)
            if covering:
                return [msgspec.structs.replace(_entry(covering[0]), uri=typed_text(wanted))]
        return [entry for entry in entries if _is_under(entry.uri, wanted)]

    @api.add("POST", PATH, status=201, section=SECTION)
    async def share(call: Call, body: list[ShareRequest]) -> list[PermissionEntry]:
        """Give a user, a role or everybody (``public``) what one manages.

        Answers what they have on each URI then, which may be more than was given.
        """
        require_person(call)
        now = datetime.now(UTC)
        wanted = [
            Grant(
                _known(parse_uri(each.uri), cluster),
                each.action,
                None if each.expires_in is None else now + _life(each.expires_in),
                call.user,
            )
            for each in body
        ]
        given = await sharing.share(call.identity, subject_of(call), wanted)
        return [_of_grant(each) for each in given]

    @api.add("DELETE", PATH, status=204, section=SECTION)
    async def revoke(call: Call, query: RevokeQuery) -> None:
        """Take back what was given on exactly this URI; it holds from the next request on."""
        require_person(call)
        await sharing.revoke(call.identity, subject_of(call), parse_uri(query.uri))

    @api.add("GET", PATH + "/shared", section=SECTION)
    async def list_shared(call: Call, query: PermissionFilter) -> list[PermissionEntry]:
        """What a user has given to others, and what others were given of theirs."""
        user = subject_of(call)
        await held_for(call, user)
        wanted = _filter(query.uri) if query.uri else ""
        top = typed_text(wanted) if isinstance(wanted, ResourceURI) else wanted
        found = await sharing.shared(user, top)
        return [_of_grant(grant, user=who) for who, grant in found]

    @api.add("GET", PATH + "/explain", section=SECTION)
    async def explain(call: Call, query: ExplainQuery) -> Explanation:
        """What a user or a role may do on a URI, and by which grants.

        One's own rights anybody may ask for, others' whoever manages the URI.
        """
        subject, uri = subject_of(call), parse_uri(query.uri)
        if subject != call.user:
            call.identity.require(uri, Action.MANAGE)
        covering = Grants(await sharing.held(subject)).covering(uri)
        return Explanation(
            user=subject,
            uri=typed_text(uri),
            action=covering[0].grant.action if covering else None,
            grants=[_entry(held) for held in covering],
        )

    @api.add("GET", "/api/v1/users/{user}/subroles", section=SECTION)
    async def list_roles(call: Call) -> Subroles:
        """The roles that are somebody's own, and those that they are in."""
        subject = subject_of(call)
        await held_for(call, subject)
        return Subroles(await sharing.roles(subject))

    return api


def _life(seconds: float) -> timedelta:
    return timedelta(seconds=min(seconds, 1e9))


def _known(uri: ResourceURI, cluster: str) -> ResourceURI:
    if uri.scheme not in GLOBAL_SCHEMES and uri.host != cluster:
        raise InvalidInput(
            f"Cluster '{uri.host[:80]}' is unknown; this server's cluster is '{cluster}'."
        )
    return uri


def _filter(text: str) -> ResourceURI | str:
    """The URI of a filter, or its scheme where there is no more."""
    scheme, colon, rest = text.partition(":")
    if colon and not rest.strip("/") and scheme.lower() in CLUSTER_SCHEMES + GLOBAL_SCHEMES:
        return f"{scheme.lower()}://"
    return parse_uri(text)


def _is_under(text: str, wanted: ResourceURI | str) -> bool:
    if isinstance(wanted, str):
        return text.startswith(wanted)
    return wanted.covers(parse_uri(text))


def _widest(held: Iterable[Held]) -> list[Held]:
    """The widest first; of equal ones what does not end."""
    return sorted(held, key=lambda it: (-it.grant.action.rank, it.until is not None))


def _entry(held: Held) -> PermissionEntry:
    return PermissionEntry(
        uri=typed_text(held.grant.uri),
        action=held.grant.action,
        via=held.path,
        granted_by=held.grant.by,
        expires_at=held.until,
    )


def _of_grant(grant: Grant, user: str | None = None) -> PermissionEntry:
    return PermissionEntry(
        uri=typed_text(grant.uri),
        action=grant.action,
        user=user,
        granted_by=grant.by,
        expires_at=grant.until,
    )
