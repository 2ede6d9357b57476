"""Service accounts as the wire knows them (docs/reference/wire-protocol.md#service-accounts)."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated

import msgspec

_Word = Annotated[str, msgspec.Meta(max_length=255)]


class ServiceAccountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """``default_project`` and ``default_org`` are what newer clients keep there."""

    name: str | None = None
    default_cluster: _Word | None = None
    default_project: _Word | None = None
    default_org: _Word | None = None


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A caller that is a program. ``role`` is its name among users: what it owns and is granted.

    ``token`` is answered once, when the account is made, and never kept.
    """

    id: str
    name: str | None
    owner: str
    role: str
    default_cluster: str
    default_project: str
    default_org: str | None
    created_at: datetime
    token: str | msgspec.UnsetType = msgspec.UNSET


class _Login(msgspec.Struct, frozen=True):
    token: str
    cluster: str
    url: str


def packed_login(token: str, cluster: str, url: str) -> str:
    """What clients unpack the token of a service account from, or log in with as a whole."""
    return base64.b64encode(msgspec.json.encode(_Login(token, cluster, url))).decode()
