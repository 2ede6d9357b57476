"""Signs tokens, and knows whose those are that are in use, so that a request costs no look-up."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from sqlalchemy import Connection

from neuro.domain.errors import NotAuthenticated, new_login
from neuro.domain.permissions import Action, Permission
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.domain.users import Token
from neuro.server.access import tables
from neuro.server.access.grant_tables import generation
from neuro.server.access.scopes import Scope
from neuro.server.database.engine import Database
from neuro.server.log import Seldom

log = structlog.get_logger("neuro.access")

ALGORITHM = "HS256"
# Who was away the longest is let go.
MAX_CACHED_TOKENS = 4096
_TOLD = ("image", "images", "pushes", "scope", "until")  # by some tokens


@dataclass(frozen=True, slots=True)
class SignedToken:
    """What a good token says. ``job`` is the job that it was given to; ``is_service``, whether its
    user is a service account.

    With one that names images nothing can be done but pull ``pulls`` and push ``pushes``; with one
    for all ``images`` nothing but pull and push them. One with a ``scope`` was made of another
    token, which is good ``until`` then; its id is that one's, so both are revoked together.
    """

    user: str
    token_id: str
    expires_at: datetime
    job: str | None = None
    is_service: bool = False
    images: bool = False
    pulls: ResourceURI | None = None
    pushes: ResourceURI | None = None
    scope: Scope | None = None
    until: datetime | None = None

    @property
    def named(self) -> list[Permission]:
        """What it allows on images that it names; empty for one that names none."""
        wanted = ((self.pulls, Action.READ), (self.pushes, Action.WRITE))
        return [Permission(uri, action) for uri, action in wanted if uri is not None]


class TokensInUse:
    """The tokens of one installation, as far as somebody uses them."""

    def __init__(
        self,
        database: Database,
        key: bytes,
        now: Callable[[], datetime],
        seen: Callable[[int], None],
    ) -> None:
        """``seen`` is told the generation of grants that each look-up reads beside the token."""
        self._database = database
        self._key = OctKey.import_key(key)
        self._now = now
        self._seen_generation = seen
        self._signed: dict[str, SignedToken] = {}  # whoever asked last stands last
        self._endings = 0
        # Tokens that were used since the start, and those that are good no more.
        self._seen: set[str] = set()
        self._refused = Seldom(log, "revoked token refused")
        # Jobs that are over, as long as the database does not know that their tokens ended.
        self._jobs_over: set[str] = set()

    def sign(self, token: Token, *, images: bool = False) -> str:
        """The text of a token; of one for ``images`` alone it says so."""
        claims: dict[str, Any] = {
            "identity": token.user,
            "jti": token.id,
            "iat": int(token.created_at.timestamp()),
            "exp": int(token.expires_at.timestamp()),
        }
        if images:
            claims["images"] = True
        return jwt.encode({"alg": ALGORITHM}, claims, self._key)

    def sign_for_images(
        self,
        user: str,
        life: timedelta,
        *,
        pulls: ResourceURI | None = None,
        pushes: ResourceURI | None = None,
    ) -> str:
        """The text of a token that is kept nowhere: it allows little, and not for long."""
        claims = {
            "identity": user,
            "jti": secrets.token_hex(16),
            "exp": int((self._now() + life).timestamp()),
        }
        claims |= _naming(pulls, pushes)
        return jwt.encode({"alg": ALGORITHM}, claims, self._key)

    def sign_scoped(self, of: SignedToken, scope: Scope, life: timedelta) -> tuple[str, datetime]:
        """The text of a token that is made of another one, kept nowhere, and when it expires."""
        expires_at = min(self._now().replace(microsecond=0) + life, of.expires_at)
        claims: dict[str, Any] = {
            "identity": of.user,
            "jti": of.token_id,
            "exp": int(expires_at.timestamp()),
            "until": int(of.expires_at.timestamp()),
            "scope": scope.as_claims(),
        }
        claims |= _naming(of.pulls, of.pushes)
        if of.images:
            claims["images"] = True
        return jwt.encode({"alg": ALGORITHM}, claims, self._key), expires_at

    async def find(self, token: str) -> SignedToken:
        """What the text of a token says. Raises NotAuthenticated, Unavailable."""
        signed = self._signed.pop(token, None)
        if signed is None or signed.expires_at <= self._now():
            return await self._sign_in(token)
        self._signed[token] = signed
        return signed

    def forget(self) -> None:
        """Look each token up anew: one may have ended."""
        self._endings += 1
        self._signed.clear()

    def refuse_jobs(self, job_ids: Collection[str]) -> None:
        """Refuse what these jobs were given from now on, whatever the database says."""
        self._jobs_over.update(job_ids)
        self._drop_jobs(job_ids)

    def forget_jobs(self, job_ids: Collection[str]) -> None:
        """The database knows that what these jobs were given has ended."""
        self._drop_jobs(job_ids)
        self._jobs_over.difference_update(job_ids)

    def _drop_jobs(self, job_ids: Collection[str]) -> None:
        """Forget what these jobs were given, and what was made of it. All others stay known: jobs
        end all the time, and the next request of everybody would ask the database.
        """
        self._endings += 1
        over = frozenset(job_ids)
        for text in [it for it, signed in self._signed.items() if signed.job in over]:
            del self._signed[text]

    async def _sign_in(self, token: str) -> SignedToken:
        claims = self._claims(token)
        user, token_id = str(claims["identity"]), str(claims["jti"])
        expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        if expires_at <= self._now():
            raise NotAuthenticated(f"This token has expired: {new_login(user)}")
        scope = until = None
        if claims["scope"] is not None:
            scope = Scope.of_claims(claims["scope"])
            until = datetime.fromtimestamp(claims["until"], UTC)
        pulls, pushes = (_image(claims.get(name)) for name in ("image", "pushes"))
        if pulls is not None or pushes is not None:
            return SignedToken(
                user, token_id, expires_at, pulls=pulls, pushes=pushes, scope=scope, until=until
            )
        digest = digest_of_token(token)
        images = claims.get("images") is True

        def look_up(connection: Connection) -> tuple[SignedToken | None, int]:
            found = tables.find_token(connection, token_id)
            known, job_id, is_service = found or (None, None, False)
            number = generation(connection)
            # What is kept is the digest of the token that one with a scope was made of.
            is_known = known == digest if scope is None else known is not None
            if not is_known or job_id in self._jobs_over:
                return None, number
            signed = SignedToken(
                user, token_id, expires_at, job_id, is_service,
                images=images, scope=scope, until=until,
            )  # fmt: skip
            return signed, number

        while True:
            endings = self._endings
            signed, number = await self._database.read(look_up)
            if self._endings == endings:
                break  # Else it may be this very token that ended since it was read.
        self._seen_generation(number)
        if signed is None:
            self._refused.say(user=user, token=token_id)
            raise NotAuthenticated(f"This token was revoked: {new_login(user)}")
        self._signed.pop(token, None)
        self._signed[token] = signed
        if len(self._signed) > MAX_CACHED_TOKENS:
            del self._signed[next(iter(self._signed))]
        if token_id not in self._seen:
            if len(self._seen) >= MAX_CACHED_TOKENS:
                self._seen.clear()
            self._seen.add(token_id)
            log.info("signed in", user=user, token=token_id)
        return signed

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims = jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims
            kept = {name: claims[name] for name in ("identity", "jti", "exp")}
            told = {name: claims.get(name) for name in _TOLD}
            return {**kept, **told}
        except (JoseError, ValueError, KeyError):
            raise NotAuthenticated(
                f"This token is not one of this server's: {new_login()}"
            ) from None


def _naming(pulls: ResourceURI | None, pushes: ResourceURI | None) -> dict[str, str]:
    named = (("image", pulls), ("pushes", pushes))
    return {name: str(image) for name, image in named if image is not None}


def _image(claim: object) -> ResourceURI | None:
    return parse_uri(claim) if isinstance(claim, str) else None


def digest_of_token(token: str) -> str:
    """What the database keeps of a token."""
    # It is 256 bits of signature over a random id: nothing to guess, so no slow hash.
    return hashlib.sha256(token.encode()).hexdigest()
