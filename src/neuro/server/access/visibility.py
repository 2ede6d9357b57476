"""Whose things a caller may see in a list: permissions as an SQL condition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import ColumnElement, Table, and_, or_

from neuro.domain.permissions import Permission


@dataclass(frozen=True)
class Visibility:
    """Everybody's things, or those of these owners and these single ones: (owner, id or name)."""

    everything: bool = False
    owners: frozenset[str] = frozenset()
    singles: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, permissions: Iterable[Permission], scheme: str, cluster: str) -> Self:
        """What permissions on ``scheme://cluster/owner/thing`` show; any action shows it."""
        everything = False
        owners: set[str] = set()
        singles: set[tuple[str, str]] = set()
        for permission in permissions:
            uri = permission.uri
            if uri.scheme != scheme or uri.host != cluster:
                continue
            if not uri.segments:
                everything = True
            elif len(uri.segments) == 1:
                owners.add(uri.segments[0])
            elif len(uri.segments) == 2:
                singles.add((uri.segments[0], uri.segments[1]))
        return cls(everything, frozenset(owners), frozenset(singles))

    def shows(self, owner: str, one: str, name: str | None) -> bool:
        """Whether it covers the thing with the id ``one`` and this name."""
        return (
            self.everything
            or owner in self.owners
            or (owner, one) in self.singles
            or (name is not None and (owner, name) in self.singles)
        )

    def condition(self, table: Table) -> ColumnElement[bool] | None:
        """The SQL of it for a table with ``owner``, ``id`` and ``name``; None for no limit."""
        if self.everything:
            return None
        columns = table.c
        parts: list[ColumnElement[bool]] = [columns.owner.in_(sorted(self.owners))]
        for owner, one in sorted(self.singles):
            is_it = or_(columns.id == one, columns.name == one)
            parts.append(and_(columns.owner == owner, is_it))
        return or_(*parts)
