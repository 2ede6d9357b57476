"""Garbage: images that nothing leads to, blobs that no image needs, and what a crash left.
A query with a grace period.

Nothing waits for it, and it waits for nothing: what somebody has locked is looked at the next time.
What is pushed, mounted or asked for again in the meantime is new, as the database shows its row
to whoever comes first, and the other sees what that one did (``tables``). A few rows at a time, so
that a push never waits for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TypeVar

import structlog
from sqlalchemy import Connection, and_, delete, exists, select, tuple_

from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.tables import (
    blobs,
    links,
    manifests,
    references,
    repositories,
    tags,
)
from neuro.server.threads import Threads

T = TypeVar("T")

log = structlog.get_logger("neuro.registry")

AT_ONCE = 50  # rows in one transaction
_LOOKED_AT = 1000
_MOST_STOREYS = 32  # of indexes in indexes that one sweep takes down; the next one goes on


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Collected:
    """What a collection has removed; ``freed`` in bytes."""

    uploads: int = 0
    images: int = 0
    links: int = 0
    blobs: int = 0
    freed: int = 0


class Collection:
    """Removes what has not been needed for ``grace``."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        grace: timedelta,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._database = database
        self._store = store
        self._grace = grace
        self._now = now
        self._threads = Threads(1, 1, "collection")

    async def close(self) -> None:
        """Wait for what it does in its thread."""
        await self._threads.close()

    async def sweep(self) -> Collected:
        """Remove all that can go now."""
        before = self._now() - self._grace
        done = Collected()
        done.uploads = await self._end_uploads(before)
        done.images = await self._remove_manifests(before)
        done.links = await self._each(
            partial(old_links, before=before), partial(_unlink, before=before)
        )
        done.blobs = await self._each(unlinked, self._remove)
        done.blobs += await self._remove_unknown(before)
        done.freed = await self._empty_trash()
        if done != Collected(links=done.links):
            log.info(
                "images collected",
                uploads=done.uploads,
                images=done.images,
                blobs=done.blobs,
                bytes=done.freed,
            )
        return done

    async def _empty_trash(self) -> int:
        """Delete what was thrown away, some at a time, as a server that stops waits for the thread;
        returns how many bytes that was.
        """
        freed = 0
        while True:
            count, size = await self._threads.whole(partial(self._store.empty_trash, AT_ONCE))
            freed += size
            if count < AT_ONCE:
                return freed

    async def _remove_manifests(self, before: datetime) -> int:
        """Indexes, and then what they alone needed, and so on; returns how many that were."""
        removed = 0
        for _ in range(_MOST_STOREYS):
            some = await self._each(
                partial(unneeded_manifests, before=before), partial(_remove_some, before=before)
            )
            removed += some
            if not some:
                break
        return removed

    async def _each(
        self,
        find: Callable[[Connection], Sequence[T]],
        remove: Callable[[Sequence[T], Connection], int],
    ) -> int:
        """Remove what is found, some at a time; returns how many that were."""
        removed = 0
        while True:
            found = await self._database.read(find)
            before = removed
            for some in _by(AT_ONCE, iter(found)):
                removed += await self._database.write(partial(remove, some))
            if len(found) < _LOOKED_AT or removed == before:
                return removed

    def _remove(self, digests: Sequence[str], connection: Connection) -> int:
        begun = time.time()
        locked = connection.execute(
            select(blobs.c.digest)
            .where(blobs.c.digest.in_(digests))
            .order_by(blobs.c.digest)
            .with_for_update(skip_locked=True)
        ).scalars()
        # A second statement, as only that sees what was done before the rows were locked.
        gone = connection.execute(
            delete(blobs)
            .where(blobs.c.digest.in_(list(locked)), _has_no_link)
            .returning(blobs.c.digest)
        )
        rows = gone.scalars().all()
        for digest in rows:
            self._store.throw_away(digest, begun)
        return len(rows)

    async def _remove_unknown(self, before: datetime) -> int:
        """Files that no row knows: their push was never committed."""
        limit = before.timestamp()
        removed = 0
        files = self._store.files()
        while True:
            some = await self._threads.whole(lambda: list(islice(files, _LOOKED_AT)))
            if not some:
                return removed
            old = [digest for digest, status in some if status.st_mtime < limit]
            unknown = await self._database.read(partial(_unknown, digests=old))
            for few in _by(AT_ONCE, iter(unknown)):
                # Whoever pushes one of them at this very moment makes its age new first.
                removed += await self._database.write(partial(self._remove_files, few, limit))

    def _remove_files(self, digests: Sequence[str], limit: float, connection: Connection) -> int:
        unknown = _unknown(connection, digests)
        return sum(self._store.throw_away(digest, limit) for digest in unknown)

    async def _end_uploads(self, before: datetime) -> int:
        """Uploads that nothing has come to."""

        def idle() -> set[str]:
            limit = before.timestamp()
            return {name for name, status in self._store.uploads() if status.st_mtime < limit}

        names = await self._threads.whole(idle)
        ended = 0
        for some in _by(AT_ONCE, iter(sorted(names))):
            going_on = await self._database.write(
                partial(blob_tables.end_uploads, upload_ids=some, before=before)
            )
            for name in set(some) - going_on:
                await self._threads.whole(partial(self._store.discard, name))
                ended += 1
        # A piece may take long to come, and tells of itself at its end.
        long_ago = before - self._grace
        await self._database.write(lambda c: blob_tables.forget_uploads(c, long_ago))
        return ended


_has_no_link = ~exists().where(links.c.digest == blobs.c.digest)
_is_not_needed = ~exists().where(
    references.c.repository_id == links.c.repository_id, references.c.digest == links.c.digest
)


_of_same = references.c.repository_id == manifests.c.repository_id
_subject = manifests.alias("subject")
# Neither by a tag, nor by an index, nor by what it is about.
is_not_led_to = and_(
    ~exists()
    .where(tags.c.repository_id == manifests.c.repository_id, tags.c.digest == manifests.c.digest)
    .correlate(manifests),
    ~exists().where(_of_same, references.c.digest == manifests.c.digest).correlate(manifests),
    ~exists()
    .where(
        _subject.c.repository_id == manifests.c.repository_id,
        _subject.c.digest == manifests.c.subject,
    )
    .correlate(manifests),
)


def unneeded_manifests(connection: Connection, before: datetime) -> list[tuple[int, str]]:
    """Manifests that nothing leads to, and that are old; by repository."""
    rows = connection.execute(
        select(manifests.c.repository_id, manifests.c.digest)
        .where(manifests.c.touched_at < before, is_not_led_to)
        .order_by(manifests.c.repository_id)
        .limit(_LOOKED_AT)
    )
    return [(row.repository_id, row.digest) for row in rows]


def _remove_some(keys: Sequence[tuple[int, str]], connection: Connection, before: datetime) -> int:
    homes = {repository_id for repository_id, _ in keys}
    held = set(
        connection.execute(
            select(repositories.c.id)
            .where(repositories.c.id.in_(homes))
            .order_by(repositories.c.id)
            .with_for_update(key_share=True, skip_locked=True)
        ).scalars()
    )
    mine = [key for key in keys if key[0] in held]
    if not mine:
        return 0
    # A second statement, as only that sees what was done before the rows were locked.
    those = tuple_(manifests.c.repository_id, manifests.c.digest).in_(mine)
    return connection.execute(
        delete(manifests).where(those, manifests.c.touched_at < before, is_not_led_to)
    ).rowcount


def old_links(connection: Connection, before: datetime) -> list[tuple[int, str]]:
    """Links that no manifest of their repository needs, and that are old."""
    rows = connection.execute(
        select(links.c.repository_id, links.c.digest)
        .where(links.c.touched_at < before, _is_not_needed)
        .limit(_LOOKED_AT)
    )
    return [(row.repository_id, row.digest) for row in rows]


def unlinked(connection: Connection) -> list[str]:
    """Blobs that no repository has."""
    found = select(blobs.c.digest).where(_has_no_link).limit(_LOOKED_AT)
    return list(connection.execute(found).scalars())


def _unlink(keys: Sequence[tuple[int, str]], connection: Connection, before: datetime) -> int:
    key = tuple_(links.c.repository_id, links.c.digest)
    locked = connection.execute(
        select(links.c.repository_id, links.c.digest)
        .where(key.in_(keys), links.c.touched_at < before)
        .order_by(links.c.digest, links.c.repository_id)
        .with_for_update(skip_locked=True)
    )
    held = [(row.repository_id, row.digest) for row in locked]
    if not held:
        return 0
    # A second statement, as only that sees what was done before the rows were locked.
    return connection.execute(delete(links).where(key.in_(held), _is_not_needed)).rowcount


def _unknown(connection: Connection, digests: Sequence[str]) -> list[str]:
    known = set(
        connection.execute(select(blobs.c.digest).where(blobs.c.digest.in_(digests))).scalars()
    )
    return [digest for digest in digests if digest not in known]


def _by(size: int, items: Iterator[T]) -> Iterator[list[T]]:
    while some := list(islice(items, size)):
        yield some
