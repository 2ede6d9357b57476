"""What the store has on the disk, and why each file is there: what ``neuro image gc`` shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from os import stat_result

from sqlalchemy import Connection, func, select

from neuro.domain.images import StoredFile, WhyStored
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.tables import links, references, repositories, tags, uploads
from neuro.server.threads import Threads

_PAGE = 500


class Census:
    """Tells of every file of a store."""

    def __init__(self, database: Database, store: BlobStore, grace: timedelta) -> None:
        self._database = database
        self._store = store
        self._grace = grace
        self._threads = Threads(1, 1, "census")

    async def close(self) -> None:
        """Wait for what it does in its thread."""
        await self._threads.close()

    async def all(self) -> AsyncGenerator[StoredFile, None]:
        """Blobs by their digests, then uploads; the sum of sizes is what the disk has."""
        now = datetime.now(UTC)
        files = self._store.files()
        while page := await self._threads.whole(lambda: list(islice(files, _PAGE))):
            for one in await self._database.read(partial(self._blobs, page, now)):
                yield one
        found = dict(await self._threads.whole(lambda: list(self._store.uploads())))
        homes = await self._database.read(_homes)
        for name, status in found.items():
            # Its name is what opens it.
            until = _moment(status) + self._grace
            yield StoredFile(
                size=status.st_size, why=WhyStored.UPLOAD, of=homes.get(name), until=until
            )

    def _blobs(
        self, page: Sequence[tuple[str, stat_result]], now: datetime, connection: Connection
    ) -> list[StoredFile]:
        digests = [digest for digest, _ in page]
        needed, touched = _needed(connection, digests), _touched(connection, digests)
        made = []
        for digest, status in page:
            until = touched.get(digest, _moment(status)) + self._grace
            if digest in needed:
                why = WhyStored.NEEDED
            else:
                why = WhyStored.RECENT if until > now else WhyStored.GARBAGE
            made.append(
                StoredFile(
                    digest=digest,
                    size=status.st_size,
                    why=why,
                    of=needed.get(digest),
                    until=until if why is WhyStored.RECENT else None,
                )
            )
        return made


def _needed(connection: Connection, digests: Sequence[str]) -> dict[str, str]:
    """An image that needs each of the blobs that one needs."""
    tagged = repositories.c.path + ":" + tags.c.tag
    untagged = repositories.c.path + "@" + references.c.manifest
    rows = connection.execute(
        select(references.c.digest, func.min(func.coalesce(tagged, untagged)))
        .join(repositories, repositories.c.id == references.c.repository_id)
        .join(
            links,
            (links.c.repository_id == references.c.repository_id)
            & (links.c.digest == references.c.digest),
        )
        .outerjoin(
            tags,
            (tags.c.repository_id == references.c.repository_id)
            & (tags.c.digest == references.c.manifest),
        )
        .where(references.c.digest.in_(digests))
        .group_by(references.c.digest)
    )
    return dict(map(tuple, rows))


def _touched(connection: Connection, digests: Sequence[str]) -> dict[str, datetime]:
    rows = connection.execute(
        select(links.c.digest, func.max(links.c.touched_at))
        .where(links.c.digest.in_(digests))
        .group_by(links.c.digest)
    )
    return dict(map(tuple, rows))


def _homes(connection: Connection) -> dict[str, str]:
    return {row.id: row.path for row in connection.execute(select(uploads.c.id, uploads.c.path))}


def _moment(status: stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)
