"""The token service of the registry: short-lived tokens for a scope, of a token of the platform.

It is what Docker's clients ask where a registry answers 401 with ``Bearer realm=…``, by GET with
Basic authentication or by POST with a form of OAuth 2. Whoever shows a token of the platform itself
does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from aiohttp import hdrs, web

from neuro.domain.errors import InvalidInput, NotAuthenticated, PlatformError
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.proofs import BASIC, NOT_LOGGED_IN, TOKEN, challenge, token_shown
from neuro.server.access.scopes import OutOfScope, Scope
from neuro.server.http.bodies import read_json
from neuro.server.http.error_forms import OCI
from neuro.server.http.origin import base_url
from neuro.server.http.routes import FOR_ALL_USERS, Call, Routes, route_of
from neuro.server.registry import token_scopes
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.names import parse_repository

TOKENS = "/v2/token"
SECTION = "images"
SERVICE = "neuro"
_PROOFS = (BASIC, TOKEN)
_MAX_FORM = 64 << 10
# What can stand between quotes; whatever else a client calls us by is not repeated to it.
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.\-_:\[\]]+")


class Tokens(Protocol):
    """Makes tokens of tokens."""

    async def scoped_token(self, token: str, wanted: Scope) -> tuple[str, Scope, datetime]:
        """A token, what it is for, and when it expires. Raises NotAuthenticated."""
        ...


class ScopedToken(msgspec.Struct, frozen=True):
    """A short-lived token: one text under both names that clients know. ``expires_in`` seconds."""

    token: str
    access_token: str
    scope: str
    expires_in: int
    issued_at: datetime


def token_routes(tokens: Tokens, cluster: str) -> list[Routes]:
    """The two ways to ask for a token."""
    by_header = Routes("registry", proofs=_PROOFS, errors=OCI)
    by_form = Routes("registry", proofs=(), errors=OCI)

    async def made(token: str, scopes: Sequence[str]) -> ScopedToken:
        text, scope, expires_at = await tokens.scoped_token(
            token, token_scopes.parse_scopes(scopes, cluster)
        )
        now = datetime.now(UTC).replace(microsecond=0)
        return ScopedToken(
            token=text,
            access_token=text,
            scope=token_scopes.as_text(scope),
            expires_in=max(1, round((expires_at - now).total_seconds())),
            issued_at=now,
        )

    @by_header.add("GET", TOKENS, inside=FOR_ALL_USERS, section=SECTION)
    async def get_token(call: Call) -> ScopedToken:
        """A short-lived token for the ``scope`` of the query, as often as wanted."""
        shown = token_shown(call.request.headers, _PROOFS)
        assert shown is not None  # or nobody would have come so far
        return await made(shown, call.request.query.getall("scope", []))

    @by_form.add("POST", TOKENS, public=True, section=SECTION)
    async def post_token(call: Call) -> ScopedToken:
        """The same by a form of OAuth 2, in which the password or the refresh token is a token."""
        form = await read_json(call.request, _read_form, _MAX_FORM)
        grant = form.get("grant_type", "")
        if grant not in _GRANTS:
            raise InvalidInput(f"'grant_type' is one of {' and '.join(_GRANTS)}.")
        if not form.get(grant):
            raise NotAuthenticated(NOT_LOGGED_IN[BASIC])
        return await made(form[grant], [form.get("scope", "")])

    return [by_header, by_form]


_GRANTS = ("password", "refresh_token")  # the names of the fields with the token, too


def _read_form(body: bytes | bytearray) -> dict[str, str]:
    try:
        fields = parse_qs(bytes(body).decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidInput(
            "The body is not a form: send application/x-www-form-urlencoded."
        ) from None
    return {name: values[-1] for name, values in fields.items()}


def ask_for_token(request: web.Request, error: PlatformError) -> str:
    """What an answer of 401 tells a registry's client: where tokens are had, and which it needs."""
    address = base_url(request)
    if not _PLAIN_URL.fullmatch(address):
        return challenge(_PROOFS)
    parts = [f'realm="{address}{TOKENS}"', f'service="{SERVICE}"']
    if scope := _scope(request):
        parts.append(f'scope="{scope}"')
    if isinstance(error, OutOfScope):
        parts.append('error="insufficient_scope"')
    elif request.headers.get(hdrs.AUTHORIZATION, "").lower().startswith("bearer "):
        parts.append('error="invalid_token"')
    return "Bearer " + ",".join(parts)


def _scope(request: web.Request) -> str:
    """Which scope a request needs. What it names may be anything, and is looked at."""
    route = route_of(request)
    wanted: dict[ResourceURI, Action] = {}
    name = _image(request.match_info.get("name", ""))
    if name is not None and route is not None and route.needs is not None:
        is_pull = route.needs.action is Action.READ
        wanted[name] = Action.READ if is_pull else Action.WRITE
    source = _image(request.query.get("from", ""))
    if source is not None:
        wanted.setdefault(source, Action.READ)
    lists = request.path.endswith("/_catalog")
    return token_scopes.as_text(Scope(tuple(wanted.items()), lists))


def _image(name: str) -> ResourceURI | None:
    """What names an image, None for what does not; of which cluster, no scope says."""
    try:
        return parse_repository(name).uri(SERVICE)
    except RegistryError:
        return None
