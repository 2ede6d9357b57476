"""Sharing: what people may do, who gave it to them, and the roles that they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.client.messages import below, done, get, send, tell
from neuro.client.transport import Request
from neuro.domain.names import check_role_name
from neuro.domain.permissions import Action
from neuro.domain.uris import parse_uri, typed_text
from neuro.domain.users import Explanation, PermissionEntry, ShareRequest, Subroles, UserRequest

if TYPE_CHECKING:
    from neuro.client.client import Client

_USERS = "/users"


class Permissions:
    """Who may do what. A subject is a user's name, a role's, or ``public`` for everybody.

    URIs are whole (``storage://default/anna/data``), where nothing else is said.
    """

    def __init__(self, client: Client) -> None:
        self._transport = client.transport

    async def share(
        self, uri: str, subject: str, action: Action, *, expires_in: float | None = None
    ) -> PermissionEntry:
        """Give somebody what you manage, for ever or for so many seconds.

        Returns what they have on it then, which may be more. Raises InvalidInput, NotFound,
        NotPermitted.
        """
        request = ShareRequest(uri=_checked(uri), action=action, expires_in=expires_in)
        path = _of(subject, "permissions")
        (given,) = await send(self._transport, "POST", path, [request], list[PermissionEntry])
        return given

    async def revoke(self, uri: str, subject: str) -> None:
        """Take back what was given on exactly this URI. Raises InvalidInput where that is none."""
        path = _of(subject, "permissions")
        request = Request(method="DELETE", path=path, params=[("uri", _checked(uri))])
        await done(self._transport, request)

    async def of(self, subject: str, *, uri: str = "") -> list[PermissionEntry]:
        """What somebody may do; only below a URI, or with a scheme (``storage:``), if given."""
        path = _of(subject, "permissions")
        return await get(self._transport, path, list[PermissionEntry], params=_filter(uri))

    async def shared(self, user: str, *, uri: str = "") -> list[PermissionEntry]:
        """What a user has given to others, and what others were given of theirs."""
        path = _of(user, "permissions/shared")
        return await get(self._transport, path, list[PermissionEntry], params=_filter(uri))

    async def explain(self, uri: str, subject: str) -> Explanation:
        """What somebody may do on a URI, and by which grants."""
        path = _of(subject, "permissions/explain")
        return await get(self._transport, path, Explanation, params=[("uri", _checked(uri))])

    async def add_role(self, name: str) -> None:
        """Make a role (``anna/roles/team``). Raises InvalidInput, AlreadyExists, NotPermitted."""
        # Another name would be a user's, for administrators.
        request = UserRequest(name=check_role_name(name))
        await tell(self._transport, "POST", _USERS, request)

    async def remove_role(self, name: str) -> None:
        """Remove a role: who was in it loses what it had. Raises NotFound, NotPermitted."""
        await tell(self._transport, "DELETE", _of(name))

    async def roles(self, subject: str) -> list[str]:
        """The roles that are somebody's own, and those that they are in."""
        return (await get(self._transport, _of(subject, "subroles"), Subroles)).subroles


def _of(subject: str, what: str = "") -> str:
    path = below(_USERS, subject.replace("/", ":"))
    return f"{path}/{what}" if what else path


def _checked(uri: str) -> str:
    return typed_text(parse_uri(uri))


def _filter(uri: str) -> list[tuple[str, str]]:
    return [("uri", uri)] if uri else []
