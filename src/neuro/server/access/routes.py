"""Users and tokens over HTTP (docs/reference/wire-protocol.md#users)."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from neuro.domain.errors import AlreadyExists, InvalidInput, NotFound, NotPermitted
from neuro.domain.names import is_role, owner_of_role
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.domain.users import PermissionEntry, Token, TokenRequest, User, UserRequest
from neuro.server.access.departure import Departures
from neuro.server.access.identity import JobIdentity
from neuro.server.access.service import DEFAULT_TOKEN_LIFE, AccessService
from neuro.server.http.routes import Call, Routes

MAX_PAGE = 1000
ADMINS_ONLY = "Only the cluster's admins may do this."


class UserPage(msgspec.Struct, frozen=True):
    """Which users to list: those after a name, at most ``limit``."""

    after: str = ""
    limit: int = MAX_PAGE


class PermissionFilter(msgspec.Struct, frozen=True):
    uri: str | None = None


def access_routes(access: AccessService, departures: Departures, cluster: str) -> Routes:
    """The routes of users and tokens."""
    api = Routes("users")
    the_cluster = ResourceURI("cluster", cluster)

    def require_person(call: Call) -> None:
        if isinstance(call.identity, JobIdentity):
            raise NotPermitted(
                f"This token belongs to {call.identity.job_id}, which ends with it: it can neither"
                " make nor revoke tokens, nor change users. Use your own login for that."
            )

    def require_admin(call: Call) -> None:
        call.identity.require(the_cluster, Action.MANAGE, hidden=NotPermitted(ADMINS_ONLY))

    def require_self_or_admin(call: Call, user: str) -> None:
        if call.user != user:
            call.identity.require(
                the_cluster, Action.MANAGE, hidden=NotFound(f'user "{user}" was not found')
            )

    @api.add("GET", "/api/v1/users")
    async def list_users(call: Call, query: UserPage) -> list[User]:
        """List users by name (admins)."""
        require_admin(call)
        return await access.users(after=query.after, limit=max(1, min(query.limit, MAX_PAGE)))

    @api.add("POST", "/api/v1/users", status=201)
    async def add_user(call: Call, body: UserRequest) -> User:
        """Make a user (admins). One's own role is answered as one that is there already.

        Flow clients of a project with an owner make its role before they start a job, and the
        oldest go on at no other answer.
        """
        if is_role(body.name) and owner_of_role(body.name) == call.user:
            raise AlreadyExists(
                f"Role '{body.name[:80]}' already exists, and nobody can be in it: projects cannot"
                " be shared."
            )
        require_admin(call)
        require_person(call)
        return await access.add_user(body.name, is_admin=body.is_admin)

    @api.add("GET", "/api/v1/users/{user}")
    async def get_user(call: Call) -> User:
        """One user: yourself, or anybody for admins."""
        require_self_or_admin(call, call.segment("user"))
        return await access.user(call.segment("user"))

    @api.add("DELETE", "/api/v1/users/{user}", status=204, section="users")
    async def remove_user(call: Call) -> None:
        """Remove a user: their tokens, jobs, bakes and schedules end, their files stay (admins)."""
        user = call.segment("user")
        call.identity.require(
            the_cluster, Action.MANAGE, hidden=NotFound(f'user "{user}" was not found')
        )
        require_person(call)
        await departures.remove(user)

    @api.add("GET", "/api/v1/users/{user}/removal", status=204, section="users")
    async def check_removal(call: Call) -> None:
        """Answer what the removal of a user would, and remove nobody (admins)."""
        require_admin(call)
        await departures.check(call.segment("user"))

    @api.add("GET", "/api/v1/users/{user}/permissions", section="users")
    async def list_permissions(call: Call, query: PermissionFilter) -> list[PermissionEntry]:
        """What a user may do: their own, or anybody's for admins."""
        user = call.segment("user")
        require_self_or_admin(call, user)
        entries = await access.permissions(user)
        prefix = query.uri
        return [
            PermissionEntry(uri=str(entry.uri), action=entry.action)
            for entry in entries
            if prefix is None or str(entry.uri).startswith(prefix)
        ]

    @api.add("POST", "/api/v1/users/{user}/permissions", status=201, section="users")
    async def share(call: Call, body: list[PermissionEntry]) -> list[PermissionEntry]:
        """Share with a role: accepted, and nobody is given anything, as roles have no members.

        Flow clients of a project with an owner share each job with the project's role, and fail
        where they cannot. A user is refused, who would wait for what was shared.
        """
        user = call.segment("user")
        if not is_role(user):
            raise InvalidInput(
                f"This server cannot share with users yet: {user[:80]} was given nothing."
            )
        return body

    @api.add("GET", "/api/v1/users/{user}/tokens")
    async def list_tokens(call: Call) -> list[Token]:
        """A user's tokens, without their text."""
        require_self_or_admin(call, call.segment("user"))
        return await access.tokens(call.segment("user"))

    @api.add("POST", "/api/v1/users/{user}/tokens", status=201)
    async def make_token(call: Call, body: TokenRequest) -> Token:
        """Issue a token; its text is answered this once."""
        require_self_or_admin(call, call.segment("user"))
        require_person(call)
        life = DEFAULT_TOKEN_LIFE
        if body.expires_in is not None:
            life = timedelta(seconds=min(body.expires_in, 1e9))
        return await access.make_token(call.segment("user"), label=body.label, life=life)

    @api.add("DELETE", "/api/v1/users/{user}/tokens/{token}", status=204)
    async def revoke_token(call: Call) -> None:
        """End a token at once."""
        require_self_or_admin(call, call.segment("user"))
        require_person(call)
        await access.revoke_token(call.segment("user"), call.segment("token"))

    return api
