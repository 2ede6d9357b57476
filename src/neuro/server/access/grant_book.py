"""What each caller holds, kept in memory as long as it is true."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from neuro.domain.permissions import PUBLIC, Permission
from neuro.server.access import grant_tables
from neuro.server.access.grants import Grant, Grants, Held, held_by
from neuro.server.access.peers import Peers, Telling, Words
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Topic

T = TypeVar("T")

# Grants of all callers together that are kept: some 30 MB. Who was away the longest is let go.
MAX_HELD = 40_000
ALL_USERS = "*"  # is no user's name
# Users whose grants have changed; None for everybody's.
Users = Collection[str] | None
Listener = Callable[[Users], Awaitable[None]]


class GrantBook:
    """Answers what a user holds, from memory where it can."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        max_held: int = MAX_HELD,
        peers: Peers | None = None,
        everybodys: Sequence[Permission] = (),
    ) -> None:
        """``peers`` are the other servers of this database; ``everybodys`` is what all users hold
        by the server's settings.
        """
        self._everybodys = [Held(Grant(it.uri, it.action), path=(PUBLIC,)) for it in everybodys]
        self._database = database
        self._peers = peers or Peers()
        self._now = now
        self._max_held = max_held
        self._known: dict[str, Grants] = {}  # whoever asked last stands last
        self._held = 0
        self._changes = 0
        self._generation = 0
        self._listeners: list[Listener] = []
        self._peers.hear(Topic.GRANTS, self._drop, self._tell_again)

    def listen(self, listener: Listener) -> None:
        """Have ``listener(users)`` awaited when grants have changed, before that is answered."""
        self._listeners.append(listener)

    def known(self, user: str) -> Grants | None:
        """What a user holds now; None where it has to be read first."""
        found = self._known.pop(user, None)
        if found is None:
            return None
        if found.until is not None and found.until <= (now := self._now()):
            self._held -= len(found.held)
            found = found.at(now)
            self._held += len(found.held)
        self._known[user] = found
        return found

    async def of(self, user: str) -> Grants:
        """What a user holds now; nothing for one who is not there."""
        while (found := self.known(user)) is None:
            await self._load(user)
        return found

    async def _load(self, user: str) -> None:
        def read(connection: Connection) -> tuple[Grants, int]:
            found, number = grant_tables.reachable_at(connection, user)
            return Grants([*held_by(user, found, self._now()), *self._everybodys]), number

        while True:
            changes = self._changes
            grants, generation = await self._database.read(read)
            if self._changes == changes:
                break  # Else they may have changed since they were read.
        self.seen(generation)
        self._known[user] = grants
        self._held += len(grants.held)
        while self._held > self._max_held and len(self._known) > 1:
            self._held -= len(self._known.pop(next(iter(self._known))).held)

    def seen(self, generation: int) -> None:
        """Say how often the database's grants have changed: more often than is known here means
        that somebody else has changed them.
        """
        if generation > self._generation:
            self._generation = generation
            self._forget(None)

    async def change(self, users: Users, change: Callable[[Connection], T]) -> T:
        """Make a change of grants in one transaction.

        When this returns it holds for every request, and for what streams, on every server.
        """

        def write(telling: Telling, connection: Connection) -> tuple[T, int]:
            grant_tables.changed(connection)
            return change(connection), self.record(connection, users, telling)

        async def both() -> T:
            with self._peers.telling() as telling:
                try:
                    result, number = await self._database.write(partial(write, telling))
                    self._generation = max(self._generation, number)
                finally:
                    # After an error as well: a database may fail just after it has made the change.
                    await self.changed(users)
                await telling.heard()
            return result

        # Whoever asked may leave before it is written: what was taken away is gone for all that.
        return await asyncio.shield(both())

    def record(self, connection: Connection, users: Users, telling: Telling) -> int:
        """Tell the other servers of a change, in its transaction; returns its generation."""
        number = grant_tables.generation(connection)
        names = [ALL_USERS] if users is None else sorted(users)
        telling.record(connection, Topic.GRANTS, [f"{number} {name}" for name in names])
        return number

    async def changed(self, users: Users) -> None:
        """Forget what these users held, and tell of it."""
        self._forget(users)
        for listener in self._listeners:
            await listener(users)

    def _drop(self, words: Words) -> None:
        """Forget what another server has changed."""
        numbers = [int(word.partition(" ")[0]) for word in words or ()]
        self._generation = max((self._generation, *numbers))
        self._forget(_users(words))

    async def _tell_again(self, words: Words) -> None:
        for listener in self._listeners:
            await listener(_users(words))

    def _forget(self, users: Users) -> None:
        self._changes += 1
        for user in list(self._known) if users is None else users:
            found = self._known.pop(user, None)
            if found is not None:
                self._held -= len(found.held)


def _users(words: Words) -> Users:
    names = {word.partition(" ")[2] for word in words or ()}
    return None if words is None or ALL_USERS in names else names
