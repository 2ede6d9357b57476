"""Who is calling, and the one question that every route asks before anything else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, Self

from neuro.domain.errors import NotFound, NotPermitted, PlatformError
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.grants import Grants, Visibility


class Allowed:
    """What a caller was allowed so far: it has to hold for as long as they go on with it."""

    __slots__ = ("_actions", "_scopes")

    def __init__(self) -> None:
        self._actions: set[tuple[ResourceURI, Action]] = set()
        self._scopes: dict[tuple[str, str], Visibility] = {}

    def note(self, uri: ResourceURI, action: Action) -> None:
        self._actions.add((uri, action))

    def note_scope(self, scheme: str, cluster: str, shown: Visibility) -> None:
        self._scopes.setdefault((scheme, cluster), shown)

    def holds(self, grants: Grants) -> bool:
        """Whether other grants allow all of it."""
        for uri, action in self._actions:
            best = grants.action_on(uri)
            if best is None or not best.includes(action):
                return False
        return all(
            shown.is_within(grants.scope(scheme, cluster))
            for (scheme, cluster), shown in self._scopes.items()
        )


@dataclass(slots=True)
class Identity:
    """A caller whose token was checked, with all that they may do, until it expires.

    ``allowed`` takes down what they were allowed, where that is asked again later.
    """

    user: str
    grants: Grants
    token_id: str
    expires_at: datetime | None = None
    allowed: Allowed | None = None

    def noted(self) -> Self:
        """The same caller, who is asked again later."""
        return replace(self, allowed=Allowed())

    def action_on(self, uri: ResourceURI) -> Action | None:
        """The widest action that the caller may do on ``uri``."""
        return self.grants.action_on(uri)

    def allows(self, uri: ResourceURI, action: Action) -> bool:
        best = self.action_on(uri)
        allows = best is not None and best.includes(action)
        if allows and self.allowed is not None:
            self.allowed.note(uri, action)
        return allows

    def require(
        self, uri: ResourceURI, action: Action, *, hidden: PlatformError | None = None
    ) -> None:
        """Raise unless the caller may do ``action`` on ``uri``.

        What they may not even read does not exist for them: ``hidden`` (by default a NotFound) is
        raised then, and NotPermitted where they may see it.
        """
        if self.allows(uri, action):
            return
        best = self.action_on(uri)
        if best is None:
            raise hidden or NotFound(f"'{uri}' was not found.")
        raise NotPermitted(f"You need the permission '{action}' on {uri}; you have '{best}'.")

    def scope(self, scheme: str, cluster: str) -> Visibility:
        """What a list of ``scheme://cluster/owner/thing`` shows the caller."""
        shown = self.grants.scope(scheme, cluster)
        if self.allowed is not None:
            self.allowed.note_scope(scheme, cluster, shown)
        return shown


@dataclass(slots=True)
class JobIdentity(Identity):
    """A job, by the token that it was given: it may do what its owner may, as long as it lives.

    It issues no tokens, changes no users and shares nothing, or what it may do would outlive it.
    """

    job_id: str = ""


@dataclass(slots=True)
class ServiceIdentity(Identity):
    """A service account: a program that may do what it was granted.

    It issues no tokens, changes no users and shares nothing, or what was taken from it would go on.
    """


@dataclass(slots=True)
class RegistryIdentity(Identity):
    """An engine that pulls or pushes an image in a user's name, or a build that does both; only a
    registry's routes know it.

    By the user's name alone it could do what is everybody's own: make a token, for one.
    """


class Authenticator(Protocol):
    """Turns a bearer token into an identity."""

    async def authenticate(self, token: str) -> Identity:
        """Raise NotAuthenticated for a token that is malformed, expired, revoked or unknown."""
        ...
