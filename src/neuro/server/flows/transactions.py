"""Reading long lists in pages, and changes with what follows from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from neuro.server.database.engine import Database

T = TypeVar("T")


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
