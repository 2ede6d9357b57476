"""Who is calling, and the one question that every route asks before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from neuro.domain.errors import NotFound, NotPermitted, PlatformError
from neuro.domain.permissions import Action, Permission, best_action
from neuro.domain.uris import ResourceURI


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller whose token was checked, with all that they may do, until it expires."""

    user: str
    permissions: tuple[Permission, ...]
    token_id: str
    expires_at: datetime | None = None

    def action_on(self, uri: ResourceURI) -> Action | None:
        """The widest action that the caller may do on ``uri``."""
        return best_action(self.permissions, uri)

    def allows(self, uri: ResourceURI, action: Action) -> bool:
        best = self.action_on(uri)
        return best is not None and best.includes(action)

    def require(
        self, uri: ResourceURI, action: Action, *, hidden: PlatformError | None = None
    ) -> None:
        """Raise unless the caller may do ``action`` on ``uri``.

        What they may not even read does not exist for them: ``hidden`` (by default a NotFound) is
        raised then, and NotPermitted where they may see it.
        """
        best = self.action_on(uri)
        if best is None:
            raise hidden or NotFound(f"'{uri}' was not found.")
        if not best.includes(action):
            raise NotPermitted(f"You need the permission '{action}' on {uri}; you have '{best}'.")


@dataclass(frozen=True, slots=True)
class JobIdentity(Identity):
    """A job, by the token that it was given: it may do what its owner may, as long as it lives.

    It issues no tokens and changes no users, or what it may do would outlive it.
    """

    job_id: str = ""


class Authenticator(Protocol):
    """Turns a bearer token into an identity."""

    async def authenticate(self, token: str) -> Identity:
        """Raise NotAuthenticated for a token that is malformed, expired, revoked or unknown."""
        ...
