"""What the part for jobs needs of an engine's lease: whether the engine is still this server's."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection


def lease_of(engine: str) -> str:
    """What the lease of an engine is called; of an empty name, how the names of all of them begin.

    Exactly one server schedules and reconciles the jobs of an engine: the one that holds it.
    """
    return f"engine:{engine}"


class EngineLease(Protocol):
    """The right to schedule and reconcile the jobs of an engine."""

    @property
    def is_held(self) -> bool:
        """Whether nobody else can have it now, by this machine's clock."""
        ...

    def check(self, connection: Connection) -> None:
        """Raise LeaseLost unless it holds until the end of this transaction."""
        ...


class _Always:
    """The lease of the only server there is."""

    is_held = True

    def check(self, connection: Connection) -> None:
        """Nobody else could have it."""


ALWAYS: EngineLease = _Always()


class OfThisMachine:
    """The lease of an engine that no other server can have, as it is a part of this machine.

    While the database is away its jobs are looked after as ever: nobody else could.
    """

    is_held = True

    def __init__(self, lease: EngineLease) -> None:
        self.check = lease.check
