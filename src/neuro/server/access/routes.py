"""Users and tokens over HTTP (docs/reference/wire-protocol.md#users)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from neuro.domain.errors import AlreadyExists, NotPermitted
from neuro.domain.names import is_role, owner_of_role
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.domain.users import Token, TokenRequest, User, UserRequest
from neuro.server.access.departure import Departures
from neuro.server.access.identity import JobIdentity, ServiceIdentity
from neuro.server.access.service import DEFAULT_TOKEN_LIFE, AccessService
from neuro.server.access.sharing import unknown
from neuro.server.http.routes import Call, Need, Routes

MAX_PAGE = 1000
NAME_SAYS = "A name may be a user's, for the cluster's admins, or a role's, for its owner."
ADMINS_ONLY = "Only the cluster's admins may do this."


class UserPage(msgspec.Struct, frozen=True):
    """Which users to list: those after a name, at most ``limit``."""

    after: str = ""
    limit: int = MAX_PAGE


def subject_of(call: Call) -> str:
    """The user or role that a path names: in URLs a role's slashes are colons."""
    return call.segment("user").replace(":", "/")


def require_person(call: Call) -> None:
    """Raise NotPermitted for a program.

    What a job may do ends with it, and so must what it does here; what a service account may do
    its owner decides.
    """
    if isinstance(call.identity, JobIdentity):
        raise NotPermitted(
            f"This token belongs to {call.identity.job_id}, which ends with it: it can neither"
            " make nor revoke tokens, nor change users, nor share. Use your own login for that."
        )
    if isinstance(call.identity, ServiceIdentity):
        raise NotPermitted(
            f"This token belongs to the service account {call.user}: it can neither make nor revoke"
            " tokens, nor change users, nor share. Its owner does that with their own login."
        )


def access_routes(access: AccessService, departures: Departures, cluster: str) -> Routes:
    """The routes of users and tokens."""
    api = Routes("users")
    the_cluster = ResourceURI("cluster", cluster)

    async def ask_for_cluster(call: Call) -> None:
        call.identity.require(the_cluster, Action.MANAGE, hidden=NotPermitted(ADMINS_ONLY))

    async def ask_for_user(call: Call) -> None:
        """One may do this to oneself, an administrator to anybody."""
        user = call.segment("user")
        if call.user != user:
            call.identity.require(the_cluster, Action.MANAGE, hidden=unknown(user))

    cluster_need = Need("cluster://{cluster}", Action.MANAGE, ask_for_cluster)
    user_need = Need("user://{user}", Action.MANAGE, ask_for_user)

    @api.add("GET", "/api/v1/users", needs=cluster_need)
    async def list_users(call: Call, query: UserPage) -> list[User]:
        """List users by name (admins)."""
        return await access.users(after=query.after, limit=max(1, min(query.limit, MAX_PAGE)))

    @api.add("POST", "/api/v1/users", status=201, inside=NAME_SAYS)
    async def add_user(call: Call, body: UserRequest) -> User:
        """Make a user (admins), or a role of one's own."""
        if is_role(body.name):
            return await add_role(call, body.name)
        await ask_for_cluster(call)
        require_person(call)
        return await access.add_user(body.name, is_admin=body.is_admin)

    async def add_role(call: Call, name: str) -> User:
        if await access.sharing.has_role(name) and owner_of_role(name) == call.user:
            # Flow clients make the role of a project before each of its jobs, also from within
            # jobs, and the oldest go on at no other answer.
            raise AlreadyExists(f"Role '{name[:80]}' already exists.")
        require_person(call)
        await access.sharing.add_role(call.identity, name)
        return User(name=name, is_admin=False, created_at=datetime.now(UTC))

    @api.add("GET", "/api/v1/users/{user}", needs=user_need)
    async def get_user(call: Call) -> User:
        """One user: yourself, or anybody for admins."""
        return await access.user(call.segment("user"))

    @api.add("DELETE", "/api/v1/users/{user}", status=204, section="users", inside=NAME_SAYS)
    async def remove_user(call: Call) -> None:
        """Remove a user: their tokens, jobs, bakes and schedules end, their files stay (admins).

        Or remove a role, in whose name each slash is written as a colon.
        """
        user = subject_of(call)
        if is_role(user):
            require_person(call)
            await access.sharing.remove_role(call.identity, user)
            return
        call.identity.require(the_cluster, Action.MANAGE, hidden=unknown(user))
        require_person(call)
        await departures.remove(user)

    @api.add("GET", "/api/v1/users/{user}/removal", status=204, section="users", needs=cluster_need)
    async def check_removal(call: Call) -> None:
        """Answer what the removal of a user would, and remove nobody (admins)."""
        await departures.check(call.segment("user"))

    @api.add("GET", "/api/v1/users/{user}/tokens", needs=user_need)
    async def list_tokens(call: Call) -> list[Token]:
        """A user's tokens, without their text."""
        return await access.tokens(call.segment("user"))

    @api.add("POST", "/api/v1/users/{user}/tokens", status=201, needs=user_need)
    async def make_token(call: Call, body: TokenRequest) -> Token:
        """Issue a token; its text is answered this once."""
        require_person(call)
        life = DEFAULT_TOKEN_LIFE
        if body.expires_in is not None:
            life = timedelta(seconds=min(body.expires_in, 1e9))
        return await access.make_token(call.segment("user"), label=body.label, life=life)

    @api.add("DELETE", "/api/v1/users/{user}/tokens/{token}", status=204, needs=user_need)
    async def revoke_token(call: Call) -> None:
        """End a token at once."""
        require_person(call)
        await access.revoke_token(call.segment("user"), call.segment("token"))

    return api
