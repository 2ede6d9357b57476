"""A permission is a (URI, action) pair; manage ⊃ write ⊃ read; it covers all below its URI."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from neuro.domain.uris import CLUSTER_SCHEMES, ResourceURI

# The subject that everybody is.
PUBLIC = "public"


class Action(StrEnum):
    """What a permission allows; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    MANAGE = "manage"

    @property
    def rank(self) -> int:
        return _RANKS[self]

    def includes(self, other: Action) -> bool:
        return self.rank >= other.rank


_RANKS = {Action.READ: 0, Action.WRITE: 1, Action.MANAGE: 2}


class Permission(msgspec.Struct, frozen=True):
    """The right to do ``action`` (and what it includes) on ``uri`` and everything below it."""

    uri: ResourceURI
    action: Action


def owner_permissions(user: str, cluster: str) -> list[Permission]:
    """What everybody has from the start: all of their own things in the cluster."""
    own = [
        Permission(ResourceURI(scheme, cluster, (user,)), Action.MANAGE)
        for scheme in CLUSTER_SCHEMES
    ]
    own.append(Permission(ResourceURI("role", user), Action.MANAGE))
    own.append(Permission(ResourceURI("user", user), Action.READ))
    return own


def account_permissions(account: str, cluster: str) -> list[Permission]:
    """What the owner of a service account has because of it: all that is its, and itself."""
    itself = ResourceURI("user", account)
    of_it = [each for each in owner_permissions(account, cluster) if each.uri != itself]
    return [*of_it, Permission(itself, Action.MANAGE)]


def admin_permissions(cluster: str) -> list[Permission]:
    """What a cluster's admins have on top: everybody's things, and the cluster itself."""
    return [
        Permission(ResourceURI(scheme, cluster), Action.MANAGE)
        for scheme in (*CLUSTER_SCHEMES, "cluster")
    ]
