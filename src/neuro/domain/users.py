"""Users and tokens as the wire knows them (docs/reference/wire-protocol.md#users)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from neuro.domain.permissions import Action


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
