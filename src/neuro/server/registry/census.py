"""What the store has on the disk, and why each file is there: what ``neuro image gc`` shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from os import stat_result
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from neuro.domain.image_upkeep import StoredFile, WhyStored
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.collection import is_not_led_to
from neuro.server.registry.tables import (
    links,
    manifests,
    references,
    repositories,
    tags,
    uploads,
)
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
        """Blobs by their digests, uploads, trash; the sum of sizes is what the disk has."""
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
        for name, status in await self._threads.whole(lambda: list(self._store.trash())):
            # Thrown away, and not deleted yet: the server was killed, or is at it.
            digest = name.partition(".")[0]
            yield StoredFile(digest=digest, size=status.st_size, why=WhyStored.GARBAGE)

    def _blobs(
        self, page: Sequence[tuple[str, stat_result]], now: datetime, connection: Connection
    ) -> list[StoredFile]:
        digests = [digest for digest, _ in page]
        needed, touched = find_needed(connection, digests), _touched(connection, digests)
        leaving = _leaving(connection, digests)
        made = []
        for digest, status in page:
            image, last = leaving.get(digest, (None, _moment(status)))
            until = max(touched.get(digest, last), last) + self._grace
            if digest in needed:
                why, image = WhyStored.NEEDED, needed[digest]
            else:
                why = WhyStored.RECENT if until > now else WhyStored.GARBAGE
            made.append(
                StoredFile(
                    digest=digest,
                    size=status.st_size,
                    why=why,
                    of=image,
                    until=until if why is WhyStored.RECENT else None,
                )
            )
        return made


def find_needed(connection: Connection, digests: Sequence[str]) -> dict[str, str]:
    """An image that needs each of the blobs that one needs, and that is to stay."""
    tagged = repositories.c.path + ":" + tags.c.tag
    rows = connection.execute(
        _of_images(digests, func.min(func.coalesce(tagged, _UNTAGGED)))
        .outerjoin(
            tags,
            (tags.c.repository_id == references.c.repository_id)
            & (tags.c.digest == references.c.manifest),
        )
        .where(~is_not_led_to)
        .group_by(references.c.digest)
    )
    return dict(map(tuple, rows))


def _leaving(connection: Connection, digests: Sequence[str]) -> dict[str, tuple[str, datetime]]:
    """An image that needs each of the blobs, to which nothing leads, and its last moment."""
    rows = connection.execute(
        _of_images(digests, func.min(_UNTAGGED), func.max(manifests.c.touched_at))
        .where(is_not_led_to)
        .group_by(references.c.digest)
    )
    return {digest: (image, moment) for digest, image, moment in rows}


_UNTAGGED = repositories.c.path + "@" + references.c.manifest


def _of_images(digests: Sequence[str], *columns: ColumnElement[Any]) -> Select[Any]:
    return (
        select(references.c.digest, *columns)
        .join(repositories, repositories.c.id == references.c.repository_id)
        .join(
            manifests,
            (manifests.c.repository_id == references.c.repository_id)
            & (manifests.c.digest == references.c.manifest),
        )
        .join(
            links,
            (links.c.repository_id == references.c.repository_id)
            & (links.c.digest == references.c.digest),
        )
        .where(references.c.digest.in_(digests))
    )


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
