"""Uploads: how blobs come in, from their beginning to the blob that each becomes. Knows no HTTP.

A push is authorized when its upload begins. The id of the upload, which nobody else is told, is
good for the rest of it: so an upload that takes longer than its token lives is not lost.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from neuro.domain.errors import TooManyRequests
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables
from neuro.server.registry.blob_tables import UploadRow
from neuro.server.registry.blobs import BlobStore, Incoming
from neuro.server.registry.errors import RegistryError, unknown_upload
from neuro.server.registry.names import DEFAULT_ALGORITHM, Repository
from neuro.server.registry.quotas import Quotas, does_not_fit
from neuro.server.threads import Threads

MAX_UPLOADS = 1000  # of one person that have begun and not ended


class Uploads:
    """The uploads of one installation. ``threads`` are the registry's."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        quotas: Quotas,
        threads: Threads,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._store = store
        self._quotas = quotas
        self._threads = threads
        self._now = now

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await self._threads.whole(lambda: work(*args))

    async def begin(
        self,
        caller: Identity,
        repository: Repository,
        algorithm: str = DEFAULT_ALGORITHM,
        size: int = 1,
    ) -> UploadRow:
        """Begin an upload of at least ``size`` bytes.

        Raises TooManyRequests where the caller has begun too many, RegistryError DENIED where their
        quota has no room for it.
        """
        upload = UploadRow(secrets.token_hex(16), repository.path, caller.user, algorithm)
        now = self._now()

        def add(connection: Connection) -> None:
            self._quotas.check(connection, repository.owner, size)
            if blob_tables.count_uploads(connection, caller.user) >= MAX_UPLOADS:
                raise TooManyRequests(
                    f"{MAX_UPLOADS} uploads of yours have begun and not ended, which is the most"
                    " for one person: end some of them.",
                    retry_after=60.0,
                )
            blob_tables.add_upload(connection, upload, now)

        await self._database.write(add)
        await self._in_thread(self._store.begin, upload.id)
        return upload

    async def find(self, repository: Repository, upload_id: str) -> UploadRow:
        """An upload that has begun. Raises RegistryError BLOB_UPLOAD_UNKNOWN."""
        found = await self._database.read(lambda c: blob_tables.get_upload(c, upload_id))
        if found is None or found.path != repository.path:
            raise unknown_upload()
        return found

    async def go_on(self, upload: UploadRow, algorithm: str) -> Incoming:
        """Go on with an upload; the caller closes it, in a thread. Raises RegistryError."""
        theirs: list[str] = []
        owner = Repository(upload.path).owner
        room = await self._database.read(lambda c: self._quotas.room(c, owner, theirs))

        def open_it() -> Incoming:
            incoming = self._store.continue_upload(upload.id, algorithm)
            if room is not None:
                others = self._store.size_of_uploads(set(theirs) - {upload.id})
                incoming.allow(room - others, does_not_fit(owner, room))
            return incoming

        return await self._threads.whole(open_it, Incoming.close)

    async def pause(self, upload: UploadRow) -> None:
        """Keep an upload from now on for a while, in which nothing may come to it."""
        now = self._now()
        await self._database.write(lambda c: blob_tables.touch_upload(c, upload.id, now))

    async def finish(self, repository: Repository, incoming: Incoming, digest: str) -> None:
        """Let what has arrived be a blob of the repository. Raises RegistryError DIGEST_INVALID."""
        now = self._now()

        def put(connection: Connection) -> None:
            self._quotas.check_blob(connection, repository.owner, digest, incoming.size)
            if not blob_tables.remove_upload(connection, incoming.upload_id):
                raise unknown_upload()  # Whoever began it is gone.
            blob_tables.put_blob(connection, repository, digest, incoming.size, now)
            incoming.place(digest)

        try:
            await self._in_thread(incoming.finish, digest)
            await self._database.write(put)
        except RegistryError:
            await self._database.write(lambda c: blob_tables.remove_upload(c, incoming.upload_id))
            await self._in_thread(incoming.discard)
            raise
        await self._in_thread(self._store.keep, digest)

    async def cancel(self, upload: UploadRow) -> None:
        """Forget an upload."""
        await self._database.write(lambda c: blob_tables.remove_upload(c, upload.id))
        await self._in_thread(self._store.discard, upload.id)

    async def end_all_of(self, people: Collection[str]) -> None:
        """Let people who are gone bring nothing more: an upload asks for no token."""
        await self._database.write(lambda c: blob_tables.end_uploads_of(c, people))
