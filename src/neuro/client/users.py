"""Users and their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.client.messages import below, get, send, tell
from neuro.domain.users import Token, TokenRequest, User, UserRequest

if TYPE_CHECKING:
    from neuro.client.client import Client

_USERS = "/users"


class Users:
    """The users of a client's server; adding and removing them is for administrators."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport

    async def all(self) -> list[User]:
        """All users."""
        return await get(self._transport, _USERS, list[User])

    async def get(self, name: str) -> User:
        """One user. Raises NotFound."""
        return await get(self._transport, below(_USERS, name), User)

    async def add(self, name: str, *, is_admin: bool = False) -> User:
        """Add a user. Raises AlreadyExists, NotPermitted."""
        request = UserRequest(name=name, is_admin=is_admin)
        return await send(self._transport, "POST", _USERS, request, User)

    async def remove(self, name: str) -> None:
        """Remove a user: their tokens, jobs, bakes and schedules end, and nobody gets the name.

        Raises NotFound, Conflict for the last administrator.
        """
        await tell(self._transport, "DELETE", below(_USERS, name))

    async def check_removal(self, name: str) -> None:
        """Raise what ``remove`` would, and remove nobody."""
        await tell(self._transport, "GET", f"{below(_USERS, name)}/removal")

    async def create_token(
        self, user: str, *, label: str = "", expires_in: float | None = None
    ) -> Token:
        """Make a token; its ``token`` is answered this once. ``expires_in`` is seconds."""
        request = TokenRequest(label=label, expires_in=expires_in)
        return await send(self._transport, "POST", _tokens(user), request, Token)

    async def tokens(self, user: str) -> list[Token]:
        """A user's tokens, without the secrets themselves."""
        return await get(self._transport, _tokens(user), list[Token])

    async def revoke_token(self, user: str, token_id: str) -> None:
        """Make a token useless. Raises NotFound."""
        await tell(self._transport, "DELETE", below(_tokens(user), token_id))


def _tokens(user: str) -> str:
    return f"{below(_USERS, user)}/tokens"
