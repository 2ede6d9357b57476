"""Reading long lists in pages, and changes: together, in turns, with what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import Connection, text

from neuro.server.database.blobs import LARGE
from neuro.server.database.engine import Database
from neuro.server.threads import working_for

T = TypeVar("T")

MOST_TOGETHER = 100  # changes in one transaction

_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")


def alone(connection: Connection, what: str) -> None:
    """Let nobody else, on any server, be between this and the end of their transaction.

    What others who said the same have changed is seen from here on. One statement on PostgreSQL;
    SQLite has one writer.
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


@dataclass(frozen=True, slots=True)
class _Asked:
    change: Callable[[Connection], Any]
    result: asyncio.Future[Any]


class _OneFailed(Exception):
    """A change failed before its transaction was committed: nothing was changed."""


class Together:
    """Small changes that are asked for at once, in one transaction: it costs more than they do.

    A change must not wait for a lock that another transaction may hold, as the others would too.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: list[_Asked] = []
        self._work: asyncio.Task[None] | None = None

    async def write(self, change: Callable[[Connection], T]) -> T:
        """``Database.write``; the change may be made twice, and counts once.

        What one change raises, its caller alone is told.
        """
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked.append(_Asked(change, result))
        if self._work is None:
            # Its turn comes after that of all requests that have arrived by now.
            self._work = asyncio.create_task(self._make())
        return await result

    async def _make(self) -> None:
        try:
            with working_for(""):  # It is everybody's, and waits for nobody's other work.
                while self._asked:
                    asked, self._asked = self._asked[:MOST_TOGETHER], self._asked[MOST_TOGETHER:]
                    await self._make_those(asked)
        finally:
            self._work = None

    async def _make_those(self, asked: Sequence[_Asked]) -> None:
        try:
            made: Sequence[Any] = await self._database.write(partial(_each, asked))
        except _OneFailed:
            each = (self._database.write(one.change) for one in asked)
            made = await asyncio.gather(*each, return_exceptions=True)
        except Exception as error:
            made = [error] * len(asked)
        for one, result in zip(asked, made, strict=True):
            if one.result.done():  # Whoever asked has left.
                continue
            if isinstance(result, BaseException):
                one.result.set_exception(result)
            else:
                one.result.set_result(result)


def _each(asked: Sequence[_Asked], connection: Connection) -> list[Any]:
    try:
        return [one.change(connection) for one in asked]
    except Exception as error:
        if len(asked) == 1:
            raise
        raise _OneFailed from error


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

        async def in_turn() -> T:
            # Held to the change's end, also where who asked has left: they may come again at once.
            async with lock:
                return await commit(self._database, change, tell)

        return await asyncio.shield(in_turn())

    async def write(self, user: str, size: int, change: Callable[[Connection], T]) -> T:
        """``commit``, of what nobody needs to be told of."""
        return await self.commit(user, size, change, lambda _: None)
