"""How callers prove who they are, and what a request shows of it.

Each route lists the proofs that it takes. Any other is as if nobody had called: so what a browser
sends by itself, once it knows a login for an address, opens nothing that did not ask for it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from enum import Enum

from aiohttp import hdrs
from multidict import MultiMapping

from neuro.domain.errors import NotAuthenticated

# RFC 6750, 2.1: nothing else can be a token, above all nothing with spaces or control characters.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


class Proof(Enum):
    """One way to show a token; the value is the scheme of the header, in lower case."""

    TOKEN = "bearer"  # noqa: S105
    # The password is the token, whatever the user name: Docker's clients send `token`, the
    # published clients the user's name.
    BASIC = "basic"


TOKEN, BASIC = Proof.TOKEN, Proof.BASIC

_CHALLENGES = {TOKEN: 'Bearer realm="neuro"', BASIC: 'Basic realm="neuro", charset="UTF-8"'}
_FORMS = {
    TOKEN: "The Authorization header must be 'Bearer <token>'.",
    BASIC: (
        "The Authorization header must be 'Basic <text>', where the text is 'NAME:TOKEN' in base64"
        " (any name, and a token as the password)."
    ),
}
NOT_LOGGED_IN = {
    TOKEN: (
        "This needs a token: log in with `neuro login` if you started this server on this machine,"
        " else with `neuro config login-with-token TOKEN URL`, as its administrator tells you."
    ),
    BASIC: (
        "This needs a token as the password, with any user name: log in with `docker login` or what"
        " your client has for it; `neuro config show-token` prints your token."
    ),
}


def token_shown(headers: MultiMapping[str], taken: Sequence[Proof]) -> str | None:
    """The token that a request shows by one of the proofs ``taken``; None where it shows none.

    Raises NotAuthenticated for such a proof that is malformed, and for two of whatever kind: a
    proxy may have read the other one.
    """
    shown = headers.getall(hdrs.AUTHORIZATION, [])
    if len(shown) > 1:
        raise NotAuthenticated("The request has more than one Authorization header: send one.")
    scheme, _, value = shown[0].partition(" ") if shown else ("", "", "")
    for proof in taken:
        if proof.value == scheme.lower():
            token = value.strip(" ") if proof is TOKEN else _password(value.strip(" "))
            if not _TOKEN.fullmatch(token):
                raise NotAuthenticated(_FORMS[proof])
            return token
    return None


def challenge(taken: Sequence[Proof]) -> str:
    """What an answer of 401 says in ``WWW-Authenticate``: the proof that the route names first.

    One alone: Docker takes the first that it knows, and asks a realm of Bearer for tokens.
    """
    return _CHALLENGES[taken[0] if taken else TOKEN]


def _password(credentials: str) -> str:
    """Of a user name and a password in base64; empty where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:  # not base64, or not of ASCII, or not UTF-8 inside
        return ""
