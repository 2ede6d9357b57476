"""Who may act, and with which token. Knows no HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from sqlalchemy import Connection

from neuro.domain.errors import AlreadyExists, Conflict, InvalidInput, NotAuthenticated, NotFound
from neuro.domain.names import check_user_name
from neuro.domain.permissions import Permission, admin_permissions, owner_permissions
from neuro.domain.users import Token, User
from neuro.server.access import tables
from neuro.server.database.engine import Database
from neuro.server.http.identity import Identity

DEFAULT_TOKEN_LIFE = timedelta(days=365)
MAX_TOKEN_LIFE = timedelta(days=3650)
MAX_LABEL = 256
# Identities of the tokens in use, so that a request costs no look-up; small, and dropped whole.
MAX_CACHED_IDENTITIES = 4096
ALGORITHM = "HS256"


def _now() -> datetime:
    return datetime.now(UTC)


class AccessService:
    """Users and tokens of one installation."""

    def __init__(
        self,
        database: Database,
        key: bytes,
        cluster: str,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self._key = OctKey.import_key(key)
        self._cluster = cluster
        self._now = now
        self._identities: dict[str, tuple[Identity, datetime]] = {}
        self._endings = 0
        self._listeners: list[Callable[[str, str | None], None]] = []

    def listen(self, listener: Callable[[str, str | None], None]) -> None:
        """Have ``listener(user, token_id)`` called when a token has ended before its time.

        With None for the token, all of the user's have ended.
        """
        self._listeners.append(listener)

    async def authenticate(self, token: str) -> Identity:
        """The identity behind a token. Raises NotAuthenticated, saying which it is."""
        cached = self._identities.get(token)
        if cached is not None and cached[1] > self._now():
            return cached[0]
        claims = self._claims(token)
        user, token_id = str(claims["identity"]), str(claims["jti"])
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if expires_at <= self._now():
            raise NotAuthenticated("This token has expired: log in again with `neuro login`.")
        digest = _digest(token)

        def look_up(connection: Connection) -> Identity | None:
            if tables.token_digest(connection, token_id) != digest:
                return None
            grants = tuple(tables.permissions_of(connection, user))
            return Identity(user=user, permissions=grants, token_id=token_id, expires_at=expires_at)

        while True:
            endings = self._endings
            identity = await self._database.read(look_up)
            if self._endings == endings:
                break  # Else it may be this very token that ended since it was read.
        if identity is None:
            raise NotAuthenticated("This token was revoked: log in again with `neuro login`.")
        if len(self._identities) >= MAX_CACHED_IDENTITIES:
            self._identities.clear()
        self._identities[token] = (identity, expires_at)
        return identity

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
            return {name: claims[name] for name in ("identity", "jti", "exp")}
        except (JoseError, ValueError, KeyError):
            raise NotAuthenticated(
                "This token is not one of this server's: log in with `neuro login`."
            ) from None

    async def identity_of(self, user: str) -> Identity:
        """A user with all that they may do now: for what the server does in their name.

        Raises NotFound for one who is gone.
        """
        return Identity(user=user, permissions=tuple(await self.permissions(user)), token_id="")

    async def add_user(self, name: str, *, is_admin: bool = False) -> User:
        """Make a user who owns what is theirs; an admin also manages everybody's.

        Raises InvalidInput for a bad name, AlreadyExists for a taken one.
        """
        check_user_name(name)
        user = User(name=name, is_admin=is_admin, created_at=self._now())
        grants = owner_permissions(name, self._cluster)
        if is_admin:
            grants += admin_permissions(self._cluster)

        def add(connection: Connection) -> None:
            if tables.get_user(connection, name) is not None:
                raise AlreadyExists(f"User '{name}' already exists.")
            tables.add_user(connection, user, grants)

        await self._database.write(add)
        return user

    async def user(self, name: str) -> User:
        """Raises NotFound."""
        found = await self._database.read(lambda connection: tables.get_user(connection, name))
        if found is None:
            raise NotFound(f'user "{name}" was not found')
        return found

    async def users(self, *, after: str = "", limit: int = 1000) -> list[User]:
        """Users by name, a page at a time."""
        return await self._database.read(
            lambda connection: tables.list_users(connection, after=after, limit=limit)
        )

    async def remove_user(self, name: str) -> None:
        """Remove a user with all their tokens and permissions. Raises NotFound."""
        if not await self._end(name, None, lambda c: tables.remove_user(c, name)):
            raise NotFound(f'user "{name}" was not found')

    async def make_token(
        self, user: str, *, label: str = "", life: timedelta = DEFAULT_TOKEN_LIFE
    ) -> Token:
        """Issue a token; its text is in the answer and nowhere else. Raises NotFound."""
        if not timedelta() < life <= MAX_TOKEN_LIFE:
            raise InvalidInput(f"A token can live up to {MAX_TOKEN_LIFE.days} days.")
        if len(label) > MAX_LABEL:
            raise InvalidInput(f"A label can be {MAX_LABEL} characters long.")
        await self.user(user)
        created_at = self._now().replace(microsecond=0)
        record = Token(
            id=secrets.token_hex(16),
            user=user,
            label=label,
            created_at=created_at,
            expires_at=created_at + life,
        )
        text = jwt.encode(
            {"alg": ALGORITHM},
            {
                "identity": user,
                "jti": record.id,
                "iat": int(created_at.timestamp()),
                "exp": int(record.expires_at.timestamp()),
            },
            self._key,
        )
        await self._database.write(lambda c: tables.add_token(c, record, _digest(text)))
        return msgspec.structs.replace(record, token=text)

    async def permissions(self, user: str) -> list[Permission]:
        """Every permission that was given to a user. Raises NotFound."""
        await self.user(user)
        return await self._database.read(lambda c: tables.permissions_of(c, user))

    async def tokens(self, user: str) -> list[Token]:
        """A user's tokens, oldest first, without their text."""
        return await self._database.read(lambda connection: tables.list_tokens(connection, user))

    async def revoke_token(self, user: str, token_id: str) -> None:
        """End a token at once. Raises NotFound, Conflict where it is revoked already."""
        known = {token.id for token in await self.tokens(user)}
        if token_id not in known:
            raise NotFound(f"Token '{token_id}' was not found.")
        now = self._now()
        if not await self._end(
            user,
            token_id,
            lambda connection: tables.revoke_token(connection, user, token_id, now),
        ):
            raise Conflict(f"Token '{token_id}' is revoked already.")

    async def _end(
        self, user: str, token_id: str | None, change: Callable[[Connection], bool]
    ) -> bool:
        """Make a change that ends tokens, and tell of it; False where nothing changed."""

        async def both() -> bool:
            try:
                return await self._database.write(change)
            finally:
                # After an error as well: a database may fail just after it has made the change.
                self._endings += 1
                self._identities.clear()
                for listener in self._listeners:
                    listener(user, token_id)

        # Whoever asked may leave before it is written: the token must end for all that.
        return await asyncio.shield(both())

    async def drop_old_tokens(self) -> int:
        """Forget tokens that expired over a day ago; returns how many."""
        before = self._now() - timedelta(days=1)
        return await self._database.write(
            lambda connection: tables.drop_old_tokens(connection, before)
        )


def _digest(token: str) -> str:
    # A token is 256 bits of signature over a random id: nothing to guess, so no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()
