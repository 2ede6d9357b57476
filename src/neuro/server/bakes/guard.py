"""Who may do what with a bake: what they may do with its project, and a little less.

A bake runs with the rights of its owner, so nobody else writes what it runs: its flow files, its
graphs and images, the outcomes of its tasks. Else whoever may write to a project would have the
rights of everybody who bakes in it. Others may cancel a bake, and restart it as it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from neuro.domain.bakes import Attempt, Bake
from neuro.domain.errors import NotFound, NotPermitted
from neuro.domain.permissions import Action
from neuro.server.access.identity import Identity
from neuro.server.bakes import tables as bakes
from neuro.server.bakes.attempts import tables as attempts
from neuro.server.projects.guard import Guard, is_id, missing


def not_own(connection: Connection, bake_id: str) -> NotPermitted | NotFound:
    """What to raise where somebody would change what another's bake runs.

    On PostgreSQL the bake may have gone since it was looked at.
    """
    owner = bakes.owner_of(connection, bake_id)
    if owner is None:
        return missing("Bake", bake_id)
    return NotPermitted(
        f"{bake_id} runs with the rights of {owner}: nobody else changes what it runs. You may"
        " cancel it, restart it as it was, or start a bake of your own."
    )


@dataclass(frozen=True)
class BakeGuard(Guard):
    """The rules of one cluster, of bakes too."""

    def bake(
        self,
        connection: Connection,
        caller: Identity,
        bake_id: str,
        action: Action,
        hidden: NotFound | None = None,
    ) -> Bake:
        """The bake of an id, without its graphs."""
        hidden = hidden or missing("Bake", bake_id)
        # Asked first: that there is a bake, if a damaged one, is for those only who may see it.
        project = bakes.project_of(connection, bake_id) if is_id("bake", bake_id) else None
        if project is None:
            raise hidden
        self.require(caller, project, action, hidden)
        bake = bakes.brief_bake(connection, bake_id)
        if bake is None:
            raise hidden
        return bake

    def own_bake(
        self,
        connection: Connection,
        caller: Identity,
        bake_id: str,
        hidden: NotFound | None = None,
    ) -> Bake:
        """The bake of an id, for who writes what it runs. Raises NotPermitted for another's."""
        bake = self.bake(connection, caller, bake_id, Action.WRITE, hidden)
        self._require_own(connection, caller, bake.id)
        return bake

    def own_attempt(self, connection: Connection, caller: Identity, attempt_id: str) -> Attempt:
        """The attempt of an id, held until the transaction ends; otherwise like ``own_bake``."""
        attempt = self.attempt(connection, caller, attempt_id, Action.WRITE, locked=True)
        self._require_own(connection, caller, attempt.bake_id)
        return attempt

    def is_own(self, connection: Connection, caller: Identity, bake_id: str) -> bool:
        """Whether a bake is driven in the caller's name."""
        return bakes.owner_of(connection, bake_id) == caller.user

    def _require_own(self, connection: Connection, caller: Identity, bake_id: str) -> None:
        if not self.is_own(connection, caller, bake_id):
            raise not_own(connection, bake_id)

    def attempt(
        self,
        connection: Connection,
        caller: Identity,
        attempt_id: str,
        action: Action,
        hidden: NotFound | None = None,
        *,
        locked: bool = False,
    ) -> Attempt:
        """The attempt of an id; ``locked`` holds it until the transaction ends."""
        hidden = hidden or missing("Attempt", attempt_id)
        is_one = is_id("attempt", attempt_id)
        project = attempts.project_of(connection, attempt_id) if is_one else None
        if project is None:
            raise hidden
        self.require(caller, project, action, hidden)
        attempt = attempts.get_attempt(connection, attempt_id, locked=locked)
        if attempt is None:
            raise hidden
        return attempt
