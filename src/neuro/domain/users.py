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


class PermissionEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action on a URI that somebody has, until ``expires_at`` if that is said.

    ``user`` is who has it, where a list is of several people's; ``via`` are the roles through which
    they have it, the nearest to them first; ``granted_by`` is nobody where it comes with being a
    user.
    """

    uri: str
    action: Action
    user: str | None = None
    via: tuple[str, ...] = ()
    granted_by: str | None = None
    expires_at: datetime | None = None


class ShareRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action on a URI to give to somebody, for ever or for ``expires_in`` seconds."""

    uri: str
    action: Action
    expires_in: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may do on a URI, and every grant that lets them, the widest first."""

    user: str
    uri: str
    action: Action | None
    grants: list[PermissionEntry]


class Subroles(msgspec.Struct, frozen=True):
    """The roles that are somebody's own, and those that they are in."""

    subroles: list[str]


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
