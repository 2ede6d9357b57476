"""Reading long lists in pages, and changes with what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import Connection, text

from neuro.server.database.blobs import LARGE
from neuro.server.database.engine import Database

T = TypeVar("T")

# PostgreSQL ends a transaction that does nothing for so long: its server is frozen.
_FROZEN_MILLISECONDS = 2000
_ALONE = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(:what, 0)),"
    f" set_config('idle_in_transaction_session_timeout', '{_FROZEN_MILLISECONDS}', true)"
)


def alone(connection: Connection, what: str) -> None:
    """Let nobody else, on any server, be between this and the end of their transaction.

    What others who said the same have changed is seen from here on. One statement on PostgreSQL,
    which ends the transaction of a server that is frozen in it; SQLite has one writer.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_ALONE, {"what": what})


async def paged(
    database: Database, size: int, read: Callable[[T | None, Connection], list[T]]
) -> AsyncGenerator[T]:
    """All items of a list whose pages ``read`` gives, each behind the last item before it."""
    after: T | None = None
    while True:
        page = await database.read(partial(read, after))
        for item in page:
            yield item
        if len(page) < size:
            return
        after = page[-1]


async def commit(
    database: Database, change: Callable[[Connection], T], tell: Callable[[T], None]
) -> T:
    """Make a change and tell of it, even if who asked for it does not wait for the end."""

    async def both() -> T:
        done = await database.write(change)
        tell(done)
        return done

    return await asyncio.shield(both())


class Turns:
    """Large changes, of each person one at a time: the others' come in between.

    On SQLite one thread writes for all.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def commit(
        self, user: str, size: int, change: Callable[[Connection], T], tell: Callable[[T], None]
    ) -> T:
        """Like the function, but where it is large, when the user's other ones are made.

        ``size`` is about how many bytes are written.
        """
        if size < LARGE:
            return await commit(self._database, change, tell)
        lock = self._locks.setdefault(user, asyncio.Lock())

        async def alone() -> T:
            # Held to the change's end, also where who asked has left: they may come again at once.
            async with lock:
                return await commit(self._database, change, tell)

        return await asyncio.shield(alone())

    async def write(self, user: str, size: int, change: Callable[[Connection], T]) -> T:
        """``commit``, of what nobody needs to be told of."""
        return await self.commit(user, size, change, lambda _: None)
