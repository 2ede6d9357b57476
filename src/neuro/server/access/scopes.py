"""What a short-lived token of the registry is for: some images, and at most what its owner may do.

Pure. The token is made of another one, and is good for no longer and for nothing more than that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from neuro.domain.errors import NotAuthenticated, PlatformError
from neuro.domain.permissions import Action, Permission
from neuro.domain.uris import ResourceURI, parse_uri
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity, RegistryIdentity


@dataclass(frozen=True, slots=True)
class Scope:
    """Images with the action on each, and whether these may be listed."""

    images: tuple[tuple[ResourceURI, Action], ...] = ()
    lists: bool = False

    def cut(self, allows: Callable[[ResourceURI, Action], bool]) -> Scope:
        """What of it is allowed: reading is left where writing is not."""
        found = []
        for uri, action in self.images:
            if allows(uri, action):
                found.append((uri, action))
            elif allows(uri, Action.READ):
                found.append((uri, Action.READ))
        return Scope(tuple(found), self.lists)

    def within(self, grants: Grants) -> Grants:
        """Of what somebody holds, what this is about."""
        wanted = [
            Permission(uri, one) for uri, action in self.images for one in {action, Action.READ}
        ]
        return grants.only(wanted)

    def as_claims(self) -> dict[str, Any]:
        """How a token says it."""
        return {"images": [[str(uri), str(action)] for uri, action in self.images]} | (
            {"lists": True} if self.lists else {}
        )

    @classmethod
    def of_claims(cls, claims: dict[str, Any]) -> Scope:
        """What a token says that this server has signed."""
        images = tuple((parse_uri(uri), Action(action)) for uri, action in claims["images"])
        return cls(images, claims.get("lists") is True)


class OutOfScope(NotAuthenticated):
    """The caller may do it, and this token of theirs is not for it: they can get one that is."""


@dataclass(slots=True)
class ScopedIdentity(RegistryIdentity):
    """A caller by a short-lived token: ``grants`` are cut to what it is ``good_for``.

    ``whole`` is what they hold without it, by which is said why something is refused.
    """

    whole: Grants = field(default_factory=lambda: Grants(()))
    good_for: Scope = Scope()

    def require(
        self, uri: ResourceURI, action: Action, *, hidden: PlatformError | None = None
    ) -> None:
        """Raises as any identity does where the caller may not do it, and OutOfScope where they
        may, with another token.
        """
        if self.allows(uri, action):
            return
        self.unscoped().require(uri, action, hidden=hidden)
        raise OutOfScope(f"This token is not for '{action}' on {uri}: get one that is.")

    def unscoped(self) -> Identity:
        """The same caller, as far as the token lets them ask what there is."""
        return Identity(self.user, self.whole, self.token_id, self.expires_at)


def scoped(identity: Identity, scope: Scope) -> ScopedIdentity:
    """A caller who shows a token that is for ``scope`` alone."""
    return ScopedIdentity(
        identity.user,
        scope.within(identity.grants),
        identity.token_id,
        identity.expires_at,
        whole=identity.grants,
        good_for=scope,
    )
