"""The registry's rules: who may pull and push what, and what a push leaves. Knows no HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from neuro.domain.errors import NotFound, NotPermitted, Unavailable
from neuro.domain.image_upkeep import ImageQuota
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.server.access.identity import Identity
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables, manifest_tables, rule_tables
from neuro.server.registry.blob_tables import FoundBlob
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.errors import (
    MissingBlobs,
    RegistryError,
    unknown_blob,
    unknown_manifest,
    unknown_repository,
)
from neuro.server.registry.manifest_tables import KeptManifest
from neuro.server.registry.manifests import Descriptor, Manifest, parse_manifest
from neuro.server.registry.names import (
    DEFAULT_ALGORITHM,
    Repository,
    algorithm_of,
    digest_of,
    is_digest,
)
from neuro.server.registry.quotas import Quotas
from neuro.server.registry.rules import check_movable
from neuro.server.registry.uploads import Uploads
from neuro.server.threads import Threads

THREADS = 8
THREADS_PER_PERSON = 4
MAX_TAGS_AT_ONCE = 64
PAGE = 1000
# For how long a blob is kept that no image needs (yet, or any more), an image that nothing leads
# to, and an upload that nothing comes to.
GRACE = timedelta(hours=24)
_PULL_NOTED_EVERY = timedelta(hours=1)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class OpenBlob:
    """A blob that is open for reading; ``size`` in bytes."""

    fd: int
    size: int

    def close(self) -> None:
        os.close(self.fd)


class RegistryService:
    """The images of one installation."""

    def __init__(
        self,
        database: Database,
        store: BlobStore,
        cluster: str,
        *,
        quotas: Quotas | None = None,
        grace: timedelta = GRACE,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.cluster = cluster
        self.store = store
        self.grace = grace
        self._database = database
        self._quotas = quotas or Quotas(0)
        self._now = now
        self._threads = Threads(THREADS, THREADS_PER_PERSON, "registry")
        self.uploads = Uploads(database, store, self._quotas, self._threads, now)
        # How many bodies are coming in now; they share the memory for what is not written yet.
        self.receiving = 0

    async def close(self) -> None:
        """Wait for work in the threads."""
        await self._threads.close()

    async def in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        """Do blocking work; a caller that is cancelled waits for it all the same."""
        return await self._threads.whole(lambda: work(*args))

    def authorize(self, caller: Identity, repository: Repository, action: Action) -> None:
        """Raise RegistryError NAME_UNKNOWN or NotPermitted unless the caller may do ``action``."""
        caller.require(
            repository.uri(self.cluster), action, hidden=unknown_repository(repository.path)
        )

    def _may_read(self, caller: Identity, path: str) -> bool:
        return caller.allows(Repository(path).uri(self.cluster), Action.READ)

    # Pulling

    async def manifest(self, repository: Repository, reference: str) -> KeptManifest:
        """A manifest by a tag or a digest. Raises RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        found = await self._database.read(partial(_manifest, repository, reference))
        await self._note_pull(repository, found)
        return found

    async def _note_pull(self, repository: Repository, found: KeptManifest) -> None:
        now = self._now()
        known = found.pulled_at
        if known is not None and now - known < min(_PULL_NOTED_EVERY, self.grace / 2):
            return
        try:
            is_there = await self._database.write(
                lambda c: manifest_tables.touch(
                    c, found.repository_id, found.digest, now, pulled=True
                )
            )
        except Unavailable:
            return  # A full disk keeps nobody from pulling.
        if not is_there:
            raise unknown_manifest(repository.path, found.digest)

    async def look_at_manifest(self, repository: Repository, reference: str) -> KeptManifest:
        """The same, of who does not pull it; it is kept for a while then. Raises RegistryError.

        Who pushes an index asks so for its parts, and does not push what is there.
        """
        found = await self._database.read(partial(_manifest, repository, reference))
        now = self._now()
        if now - found.touched_at > self.grace / 2 and not await self._database.write(
            lambda c: manifest_tables.touch(c, found.repository_id, found.digest, now, pulled=False)
        ):
            raise unknown_manifest(repository.path, reference)
        return found

    async def blob_size(self, repository: Repository, digest: str) -> int:
        """How many bytes a blob has; it is kept for a while then. Raises RegistryError.

        Who pushes asks this first, and does not push what is there: it must not go before the
        manifest comes.
        """
        found = await self._blob(repository, digest)
        now = self._now()
        if now - found.touched_at > self.grace / 2 and not await self._database.write(
            lambda c: blob_tables.touch(c, found.repository_id, digest, now)
        ):
            raise unknown_blob(repository.path, digest)
        if not await self.in_thread(self.store.has, digest):
            raise unknown_blob(repository.path, digest)
        return found.size

    async def open_blob(self, repository: Repository, digest: str) -> OpenBlob:
        """A blob to read; the caller closes it. Raises RegistryError BLOB_UNKNOWN, NAME_UNKNOWN."""
        found = await self._blob(repository, digest)
        fd = await self._threads.whole(lambda: self.store.open(digest), _close)
        if fd is None:
            raise unknown_blob(repository.path, digest)
        return OpenBlob(fd, found.size)

    async def _blob(self, repository: Repository, digest: str) -> FoundBlob:
        def find(connection: Connection) -> FoundBlob:
            found = blob_tables.find_blob(connection, repository.path, digest)
            if found is None:
                _repository(connection, repository)
                raise unknown_blob(repository.path, digest)
            return found

        return await self._database.read(find)

    # Lists

    async def tags(self, repository: Repository, after: str, limit: int) -> list[str]:
        """Tags by name, ``limit`` of them at most. Raises RegistryError NAME_UNKNOWN."""

        def find(connection: Connection) -> list[str]:
            repository_id = _repository(connection, repository)
            return manifest_tables.list_tags(connection, repository_id, after, limit)

        return await self._database.read(find)

    async def catalog(self, caller: Identity, after: str, limit: int) -> list[str]:
        """The repositories with an image that the caller may read, ``limit`` of them at most."""
        top = ResourceURI("image", self.cluster)
        owners = None
        if caller.action_on(top) is None:
            owners = list(caller.grants.names_below(top))
        found: list[str] = []
        while len(found) < limit:
            page = await self._database.read(
                partial(manifest_tables.list_repositories, owners=owners, after=after, limit=PAGE)
            )
            found += [path for path in page if self._may_read(caller, path)]
            if len(page) < PAGE:
                break
            after = page[-1]
        return found[:limit]

    async def referrers(
        self, repository: Repository, subject: str, artifact_type: str | None, after: str
    ) -> tuple[list[Descriptor], bool]:
        """What is about a digest, a page of it behind a digest, and whether there is more."""
        return await self._database.read(
            lambda c: manifest_tables.list_referrers(
                c, repository.path, subject, artifact_type, after, PAGE
            )
        )

    # Pushing

    async def mount(
        self, caller: Identity, repository: Repository, digest: str, source: Repository | None
    ) -> bool:
        """Let the repository have a blob of another one that the caller may read.

        ``source`` None: of any such. False where there is none, or its file is not there. Raises
        OutOfScope where they may read the source, and their token is not for it.
        """
        if source is not None:
            with suppress(NotFound, NotPermitted):
                caller.require(source.uri(self.cluster), Action.READ)

        def has(connection: Connection) -> bool:
            if source is not None:
                return self._may_read(caller, source.path) and (
                    blob_tables.find_blob(connection, source.path, digest) is not None
                )
            homes = blob_tables.homes_of(connection, digest)
            return any(self._may_read(caller, path) for path in homes)

        if not await self._database.read(has) or not await self.in_thread(self.store.has, digest):
            return False
        now = self._now()

        def take(connection: Connection) -> None:
            size = blob_tables.size_of_blob(connection, digest) or 0
            self._quotas.check_blob(connection, repository.owner, digest, size)
            blob_tables.link(connection, repository, digest, now)

        try:
            await self._database.write(take)
        except IntegrityError:
            return False  # Removed a moment ago: it has to be pushed.
        return True

    async def put_manifest(
        self,
        repository: Repository,
        reference: str,
        tags: Sequence[str],
        content: bytes,
        media_type: str,
        *,
        whole: bool = False,
    ) -> Manifest:
        """Keep a manifest by its digest, and let tags lead to it. Raises RegistryError.

        What it names need not be there: a part of an index, or a layer that is kept elsewhere.
        With ``whole`` each blob has to be, of this very repository: otherwise nothing is kept.
        Raises MissingBlobs then.
        """
        named = is_digest(reference)
        digest = digest_of(content, algorithm_of(reference) if named else DEFAULT_ALGORITHM)
        if named and digest != reference:
            raise RegistryError(
                "DIGEST_INVALID",
                400,
                f"What has arrived is {digest}, and not {reference}: push it again.",
                {"digest": reference},
            )
        if len(tags) > MAX_TAGS_AT_ONCE:
            raise RegistryError(
                "TAG_INVALID", 400, f"A push can set {MAX_TAGS_AT_ONCE} tags, not {len(tags)}."
            )
        manifest = parse_manifest(content, media_type, digest)
        tagged = sorted({*tags, *(() if named else (reference,))})
        if whole:
            await self._check_blobs(repository, manifest)
        now = self._now()

        def put(connection: Connection) -> None:
            self._quotas.check(connection, repository.owner, len(content))
            repository_id = blob_tables.make_repository(connection, repository)
            blob_tables.alone_in(connection, repository_id)
            rules = rule_tables.find_rules(connection, repository.path).rules
            if rules.immutable:
                moved = rule_tables.moved(connection, repository_id, tagged, digest)
                check_movable(repository.path, moved, rules)
            kept = manifest_tables.put_manifest(connection, repository_id, manifest, tagged, now)
            if whole and (lost := [each for each in manifest.references if each not in kept]):
                raise MissingBlobs(repository.path, lost)  # Collected a moment ago.

        await self._database.write(put)
        return manifest

    async def _check_blobs(self, repository: Repository, manifest: Manifest) -> None:
        """Raise MissingBlobs unless a repository has all blobs of a manifest, with their files.

        Of what it does not have no file is looked for: how long that takes would tell whether
        somebody else has it.
        """
        if manifest.is_index:
            raise RegistryError(
                "UNSUPPORTED",
                400,
                "An index names manifests, and is pushed without 'whole' in the query.",
            )
        linked = await self._database.read(
            lambda c: blob_tables.linked_of(c, repository.path, manifest.references)
        )
        there = await self.in_thread(lambda: set(filter(self.store.has, linked)))
        if missing := [each for each in manifest.references if each not in there]:
            raise MissingBlobs(repository.path, missing)

    # Quotas

    async def quota(self, owner: Repository) -> ImageQuota:
        """How much a person's images may take, and do take."""
        return await self._database.read(lambda c: self._quotas.find(c, owner.path))

    async def quotas(self, after: str, limit: int) -> list[ImageQuota]:
        """The same of all who have images, by name."""
        return await self._database.read(lambda c: self._quotas.all(c, after, limit))

    async def set_quota(self, owner: Repository, size: int | None) -> ImageQuota:
        """Let a person have a quota of bytes; 0: no limit; None: what all have."""

        def put(connection: Connection) -> ImageQuota:
            self._quotas.set(connection, owner.path, size)
            return self._quotas.find(connection, owner.path)

        return await self._database.write(put)

    # Removing

    async def remove(self, repository: Repository, reference: str) -> None:
        """Remove a tag alone, or a manifest with all its tags. Raises RegistryError."""
        now = self._now()

        def change(connection: Connection) -> bool:
            repository_id = _repository(connection, repository)
            blob_tables.alone_in(connection, repository_id)
            rules = rule_tables.find_rules(connection, repository.path).rules
            if rules.immutable:
                find = rule_tables.leading_to if is_digest(reference) else rule_tables.existing
                tags = find(connection, repository_id, reference)
                check_movable(repository.path, tags, rules)
            if is_digest(reference):
                return manifest_tables.remove_manifest(connection, repository_id, reference, now)
            return manifest_tables.remove_tags(connection, repository_id, [reference], now) > 0

        if not await self._database.write(change):
            raise unknown_manifest(repository.path, reference)

    async def remove_blob(self, repository: Repository, digest: str) -> None:
        """Take a blob from the repository. Raises RegistryError, where an image needs it too."""

        def change(connection: Connection) -> None:
            found = blob_tables.find_blob(connection, repository.path, digest)
            if found is None:
                _repository(connection, repository)
                raise unknown_blob(repository.path, digest)
            blob_tables.hold(connection, found.repository_id, digest)
            if blob_tables.is_referenced(connection, found.repository_id, digest):
                raise RegistryError(
                    "UNSUPPORTED",
                    405,
                    f"An image of '{repository.path}' needs the blob {digest}: remove the image,"
                    " and the blob goes with it.",
                )
            blob_tables.unlink(connection, found.repository_id, digest)

        await self._database.write(change)


def _repository(connection: Connection, repository: Repository) -> int:
    found = blob_tables.find_repository(connection, repository.path)
    if found is None:
        raise unknown_repository(repository.path)
    return found


def _manifest(repository: Repository, reference: str, connection: Connection) -> KeptManifest:
    found = manifest_tables.find_manifest(connection, repository.path, reference)
    if found is None:
        _repository(connection, repository)
        raise unknown_manifest(repository.path, reference)
    return found


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
