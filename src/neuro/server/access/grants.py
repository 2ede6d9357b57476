"""What a caller may do, as one value: pure, and the only place where that is worked out.

A grant gives an action on a URI and on everything below it, to a subject: a user, a role, or
``public``, which everybody is. Whoever is given ``role://NAME`` itself, with whatever action, is in
that role, and has what it has; a role may be in others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import msgspec
from sqlalchemy import (
    ARRAY,
    CollectionAggregate,
    ColumnElement,
    String,
    Table,
    and_,
    any_,
    func,
    literal,
    or_,
    select,
)

from neuro.domain.permissions import PUBLIC, Action, Permission
from neuro.domain.uris import ResourceURI

_ACTIONS = tuple(Action)
_Key = tuple[str, ...]
# How ids of all kinds end. A name may end so too.
_ID = re.compile(r"-[0-9a-f]{4}-[0-9a-f]{12}$")


class Grant(msgspec.Struct, frozen=True, gc=False):
    """One grant as it is kept. ``until`` is when it ends by itself; ``by`` is who made it.

    Nobody made what comes with being a user.
    """

    uri: ResourceURI
    action: Action
    until: datetime | None = None
    by: str | None = None

    def includes(self, other: Grant) -> bool:
        """Whether it allows all that another grant on the same URI allows, for as long."""
        return self.action.includes(other.action) and (
            self.until is None or (other.until is not None and self.until >= other.until)
        )


class Held(msgspec.Struct, frozen=True, gc=False):
    """A grant that a caller has, and the roles (or ``public``) through which they have it.

    ``until`` is when they lose it, which may be sooner than the grant's own end.
    """

    grant: Grant
    path: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True)
class Visibility:
    """Whose things a list shows: everybody's, or those of owners and single ones.

    A single one is (owner, id or name).
    """

    everything: bool = False
    owners: frozenset[str] = frozenset()
    singles: frozenset[tuple[str, str]] = frozenset()

    def shows(self, owner: str, one: str, name: str | None) -> bool:
        """Whether it covers the thing with the id ``one`` and this name."""
        return (
            self.everything
            or owner in self.owners
            or (owner, one) in self.singles
            or (name is not None and (owner, name) in self.singles)
        )

    def is_within(self, other: Visibility) -> bool:
        """Whether all that it covers is covered by another one."""
        return other.everything or (
            not self.everything
            and self.owners <= other.owners
            and all(
                owner in other.owners or (owner, one) in other.singles
                for owner, one in self.singles
            )
        )

    def condition(self, table: Table, dialect: str) -> ColumnElement[bool] | None:
        """The SQL of it for a table with ``owner``, ``id`` and ``name``; None for no limit."""
        if self.everything:
            return None
        columns = table.c
        parts: list[ColumnElement[bool]] = [columns.owner.in_(sorted(self.owners))]
        one_of = _one_of_in_sqlite if dialect == "sqlite" else _one_of
        for column, singles in (
            (columns.id, [it for it in self.singles if _ID.search(it[1])]),
            (columns.name, self.singles),
        ):
            if singles:
                parts.append(one_of(table, column, sorted(singles)))
        return or_(*parts)


def _one_of(
    table: Table, column: ColumnElement[str], singles: Sequence[tuple[str, str]]
) -> ColumnElement[bool]:
    # Each part of the sum has an index, or all things there are would be looked at; the pair as
    # one text makes it exact. Lists are one value each: ten thousand values take seconds.
    owner = table.c.owner
    return and_(
        column == _any_of(sorted({one for _, one in singles})),
        owner == _any_of(sorted({owner for owner, _ in singles})),
        (owner + "/" + column) == _any_of([f"{owner}/{one}" for owner, one in singles]),
    )


def _any_of(values: list[str]) -> CollectionAggregate[bool]:
    return any_(literal(values, ARRAY(String)))


def _one_of_in_sqlite(
    table: Table, column: ColumnElement[str], singles: Sequence[tuple[str, str]]
) -> ColumnElement[bool]:
    # Of two lists SQLite would try each owner with each name: here it goes through the pairs, and
    # finds each by an index.
    pair = func.json_each(json.dumps([f"{one}/{owner}" for owner, one in singles])).table_valued(
        "value", name="pair"
    )
    slash = func.instr(pair.c.value, "/")
    thing = table.alias("thing")
    [key] = table.primary_key.columns
    found = (
        select(thing.c[key.name])
        .select_from(pair.join(thing, literal(True)))
        .where(
            thing.c[str(column.key)] == func.substr(pair.c.value, 1, slash - 1),
            thing.c.owner == func.substr(pair.c.value, slash + 1),
        )
    )
    return key.in_(found)


class Grants:
    """All that one caller holds at a moment. Every question is answered from here."""

    __slots__ = ("_actions", "_below", "_deepest", "_scopes", "held", "until")

    def __init__(self, held: Iterable[Held]) -> None:
        self.held = tuple(held)
        # The first moment at which something of it ends: ask ``at`` for what is left then.
        self.until = min((it.until for it in self.held if it.until is not None), default=None)
        self._actions: dict[_Key, int] = {}
        for it in self.held:
            rank = it.grant.action.rank
            for key in _keys(it.grant):
                if rank > self._actions.get(key, -1):
                    self._actions[key] = rank
        self._deepest = max(map(len, self._actions), default=0)
        self._below: dict[_Key, dict[str, Action | None]] | None = None
        self._scopes: dict[tuple[str, str], Visibility] = {}

    @classmethod
    def of(cls, permissions: Iterable[Permission]) -> Self:
        """Plain permissions, without an end."""
        return cls(Held(Grant(it.uri, it.action)) for it in permissions)

    def at(self, now: datetime) -> Grants:
        """What is left of it at a moment."""
        if self.until is None or self.until > now:
            return self
        return Grants(it for it in self.held if it.until is None or it.until > now)

    def action_on(self, uri: ResourceURI) -> Action | None:
        """The widest action that is granted on ``uri``, or None."""
        best, known = -1, self._actions.get
        key = (uri.scheme, uri.host, *uri.segments)
        for end in range(1, min(len(key), self._deepest) + 1):
            rank = known(key[:end], -1)
            if rank > best:
                best = rank
        return None if best < 0 else _ACTIONS[best]

    def depth_of(self, uri: ResourceURI, action: Action) -> int:
        """How many segments the highest URI has from which ``action`` on ``uri`` is granted.

        Raises ValueError where none is.
        """
        key = (uri.scheme, uri.host, *uri.segments)
        for end in range(1, min(len(key), self._deepest) + 1):
            if self._actions.get(key[:end], -1) >= action.rank:
                return max(0, end - 2)
        raise ValueError(f"{action} on {uri} is not granted.")

    def names_below(self, uri: ResourceURI) -> Mapping[str, Action | None]:
        """The names right below ``uri`` that may be listed because of grants there or deeper.

        With each comes the action that is granted on it, or None where there is only passing
        through, to something deeper.
        """
        if self._below is None:
            self._below = {}
            for key, rank in self._actions.items():
                for end in range(2, len(key)):
                    names = self._below.setdefault(key[:end], {})
                    if end == len(key) - 1:
                        names[key[end]] = _ACTIONS[rank]
                    else:
                        names.setdefault(key[end], None)
        return self._below.get((uri.scheme, uri.host, *uri.segments), {})

    def scope(self, scheme: str, cluster: str) -> Visibility:
        """What a list of ``scheme://cluster/owner/thing`` shows; any action shows it."""
        known = self._scopes.get((scheme, cluster))
        if known is None:
            keys = [key for key in self._actions if key[:2] == (scheme, cluster)]
            known = self._scopes[scheme, cluster] = Visibility(
                any(len(key) == 2 for key in keys),
                frozenset(key[2] for key in keys if len(key) == 3),
                frozenset((key[2], key[3]) for key in keys if len(key) == 4),
            )
        return known

    def only(self, wanted: Iterable[Permission]) -> Grants:
        """Of all that is held, what allows these, and for these alone."""
        return Grants(
            Held(Grant(one.uri, one.action), it.path, it.until)
            for one in wanted
            for it in self.covering(one.uri, one.action)
        )

    def only_of(self, scheme: str) -> Grants:
        """Of all that is held, what is about things of one kind."""
        return Grants(it for it in self.held if it.grant.uri.scheme == scheme)

    def covering(self, uri: ResourceURI, action: Action = Action.READ) -> list[Held]:
        """What allows ``action`` on ``uri``: the widest first, then what lasts the longest."""
        key = (uri.scheme, uri.host, *uri.segments)
        found = [
            it
            for it in self.held
            if it.grant.action.includes(action)
            and any(key[: len(top)] == top for top in _keys(it.grant))
        ]
        return sorted(found, key=_order)


def held_by(
    subject: str, grants: Mapping[str, Sequence[Grant]], now: datetime | None = None
) -> list[Held]:
    """What a user holds, by themselves, by their roles and as one of the public.

    ``grants`` are those of every subject that may matter. Of several ways to a role the one that
    lasts the longest counts.
    """
    ways: dict[str, tuple[tuple[str, ...], datetime | None]] = {}
    reached: list[tuple[str, tuple[str, ...], datetime | None]] = [(subject, (), None)]
    if subject != PUBLIC:
        reached.append((PUBLIC, (PUBLIC,), None))
    while reached:
        further: list[tuple[str, tuple[str, ...], datetime | None]] = []
        for name, path, until in reached:
            known = ways.get(name)
            if known is not None and not _is_later(until, known[1]):
                continue
            ways[name] = path, until
            for grant in grants.get(name, ()):
                role = role_of(grant.uri)
                if role is not None and (grant.until is None or now is None or grant.until > now):
                    further.append((role, (*path, role), _sooner(until, grant.until)))
        reached = further
    held = [
        Held(grant, path, _sooner(until, grant.until))
        for name, (path, until) in ways.items()
        for grant in grants.get(name, ())
    ]
    return [it for it in held if now is None or it.until is None or it.until > now]


def role_of(uri: ResourceURI) -> str | None:
    """The role that a URI is of, if it is one's.

    >>> role_of(ResourceURI("role", "ann", ("projects", "sweep")))
    'ann/projects/sweep'
    """
    if uri.scheme != "role" or not uri.segments:
        return None
    return "/".join((uri.host, *uri.segments))


def role_uri(name: str) -> ResourceURI:
    """The URI of a role.

    >>> str(role_uri("ann/projects/sweep"))
    'role://ann/projects/sweep'
    """
    host, *segments = name.split("/")
    return ResourceURI("role", host, tuple(segments))


def _keys(grant: Grant) -> list[_Key]:
    uri = grant.uri
    keys: list[_Key] = [(uri.scheme, uri.host, *uri.segments)]
    if uri.scheme == "cluster" and grant.action is Action.MANAGE and not uri.segments:
        # Roles and users belong to no cluster: who manages the cluster manages them all.
        keys += [("role",), ("user",)]
    return keys


def _order(held: Held) -> tuple[object, ...]:
    # To its end: the database keeps no order, and who asks twice is to see the same twice.
    grant, path = held.grant, held.path
    widest = (-grant.action.rank, _lasting(held.until), len(path))
    return *widest, path, str(grant.uri), _lasting(grant.until), grant.by or ""


def _lasting(until: datetime | None) -> tuple[bool, float]:
    return until is not None, 0.0 if until is None else -until.timestamp()


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _is_later(one: datetime | None, other: datetime | None) -> bool:
    return other is not None and (one is None or one > other)
