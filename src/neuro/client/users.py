"""Users and their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import msgspec

from neuro.client.transport import Request
from neuro.domain.users import Token, TokenRequest, User, UserRequest

if TYPE_CHECKING:
    from neuro.client.client import Client

T = TypeVar("T")


class Users:
    """The users of a client's server; adding and removing them is for administrators."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport

    async def all(self) -> list[User]:
        """All users."""
        return await self._answer(Request(method="GET", path="/users"), list[User])

    async def get(self, name: str) -> User:
        """One user. Raises NotFound."""
        return await self._answer(Request(method="GET", path=_user(name)), User)

    async def add(self, name: str, *, is_admin: bool = False) -> User:
        """Add a user. Raises AlreadyExists, NotPermitted."""
        request = UserRequest(name=name, is_admin=is_admin)
        return await self._answer(_post("/users", request), User)

    async def remove(self, name: str) -> None:
        """Remove a user: their tokens, jobs, bakes and schedules end, and nobody gets the name.

        Raises NotFound, Conflict for the last administrator.
        """
        await self._done(Request(method="DELETE", path=_user(name)))

    async def create_token(
        self, user: str, *, label: str = "", expires_in: float | None = None
    ) -> Token:
        """Make a token; its ``token`` is answered this once. ``expires_in`` is seconds."""
        request = TokenRequest(label=label, expires_in=expires_in)
        return await self._answer(_post(f"{_user(user)}/tokens", request), Token)

    async def tokens(self, user: str) -> list[Token]:
        """A user's tokens, without the secrets themselves."""
        return await self._answer(Request(method="GET", path=f"{_user(user)}/tokens"), list[Token])

    async def revoke_token(self, user: str, token_id: str) -> None:
        """Make a token useless. Raises NotFound."""
        path = f"{_user(user)}/tokens/{quote(token_id, safe='')}"
        await self._done(Request(method="DELETE", path=path))

    async def _answer(self, request: Request, kind: type[T]) -> T:
        async with self._transport.send(request) as response:
            return msgspec.json.decode(await response.read(), type=kind)

    async def _done(self, request: Request) -> None:
        async with self._transport.send(request) as response:
            await response.read()


def _user(name: str) -> str:
    return f"/users/{quote(name, safe='')}"


def _post(path: str, content: msgspec.Struct) -> Request:
    return Request(
        method="POST",
        path=path,
        headers={"Content-Type": "application/json"},
        body=msgspec.json.encode(content),
    )
