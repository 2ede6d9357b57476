"""Users and tokens as the wire knows them (docs/reference/wire-protocol.md#users)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.permissions import Action

MIN_TOKEN_LIFE, MAX_TOKEN_LIFE = timedelta(seconds=1), timedelta(days=3650)


class User(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    is_admin: bool
    created_at: datetime


class UserRequest(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    is_admin: bool = False


class PermissionEntry(msgspec.Struct, frozen=True, kw_only=True):
    uri: str
    action: Action


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``expires_in`` is seconds; None means the server's default."""

    label: str = ""
    expires_in: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token's record; ``token`` itself is answered once, when it is made, and never kept."""

    id: str
    user: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    token: str | None = None


def check_token_life(life: timedelta) -> timedelta:
    """``life`` if a token can be valid for it. Raises InvalidInput.

    >>> check_token_life(timedelta(days=1))
    datetime.timedelta(days=1)
    """
    if life < MIN_TOKEN_LIFE:
        raise InvalidInput("A token is valid for at least one second: give it a longer life.")
    if life > MAX_TOKEN_LIFE:
        raise InvalidInput(f"A token is valid for at most {MAX_TOKEN_LIFE.days} days.")
    return life
