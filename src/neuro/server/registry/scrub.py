"""Reads every blob again, and takes away those that are not what their digest says.

It reads no faster than ``RATE``, so that pulls and pushes hardly notice. A blob that was taken away
is as if it had never been pushed: whoever pushes the image again brings it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from itertools import islice
from os import stat_result

import structlog
from sqlalchemy import Connection, select

from neuro.domain.errors import Conflict
from neuro.domain.image_upkeep import ScrubbedFile
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.census import find_needed
from neuro.server.registry.tables import blobs
from neuro.server.threads import Threads

log = structlog.get_logger("neuro.registry")

RATE = 100 << 20  # bytes in a second
_PAGE = 500


class Scrub:
    """One at a time, of one server."""

    def __init__(self, database: Database, store: BlobStore, rate: float = RATE) -> None:
        self._database = database
        self._store = store
        self._rate = rate
        self._threads = Threads(1, 1, "scrub")
        self._is_at_work = False

    async def close(self) -> None:
        """Wait for what it does in its thread."""
        await self._threads.close()

    async def all(self) -> AsyncGenerator[ScrubbedFile, None]:
        """Each blob when it was read. Raises Conflict where somebody else has begun it."""
        if self._is_at_work:
            raise Conflict("The registry is being scrubbed already: wait for the end of that.")
        self._is_at_work = True
        try:
            files = self._store.files()
            while page := await self._threads.whole(lambda: list(islice(files, _PAGE))):
                for digest, status in page:
                    yield await self._scrub(digest, status)
        finally:
            self._is_at_work = False

    async def _scrub(self, digest: str, status: stat_result) -> ScrubbedFile:
        is_right = await self._is_right(digest)
        if is_right is None or is_right:
            return ScrubbedFile(digest=digest, size=status.st_size, is_rotten=False)
        found = await self._database.read(partial(find_needed, digests=[digest]))
        is_gone = await self._database.write(partial(self._take_away, digest, status))
        log.error("a blob has rotted", digest=digest, image=found.get(digest), removed=is_gone)
        return ScrubbedFile(
            digest=digest, size=status.st_size, is_rotten=is_gone, of=found.get(digest)
        )

    async def _is_right(self, digest: str) -> bool | None:
        """None for what has gone meanwhile."""
        reading = await self._threads.whole(lambda: self._store.read_again(digest))
        if reading is None:
            return None
        try:
            begun = time.monotonic()
            while await self._threads.whole(reading.go_on):
                ahead = reading.done / self._rate - (time.monotonic() - begun)
                await asyncio.sleep(max(0.0, ahead))
            return reading.is_right
        finally:
            await self._threads.whole(reading.close)

    def _take_away(self, digest: str, status: stat_result, connection: Connection) -> bool:
        # Whoever pushes it at this moment waits, and puts a new file in its place.
        held = select(blobs.c.digest).where(blobs.c.digest == digest).with_for_update()
        connection.execute(held)
        return self._store.take_away(digest, status)
