"""The secrets of one installation: who may do what with them, and their values for jobs. No HTTP.

To read a secret is to use it in one's own jobs and to see its name; nobody is answered its value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.errors import Conflict, Damaged, InvalidInput, NotFound, Unavailable
from neuro.domain.permissions import Action
from neuro.domain.secrets import (
    SecretEntry,
    SecretsRotated,
    SecretVersion,
    check_secret_key,
    check_secret_value,
)
from neuro.domain.uris import ResourceURI, typed_text
from neuro.server.access.identity import Identity
from neuro.server.access.people import person_of
from neuro.server.database.engine import Database
from neuro.server.secrets import tables
from neuro.server.secrets.keyring import KeyRing, SecretKey
from neuro.server.secrets.sealing import SecretPlace, seal, unseal

log = structlog.get_logger("neuro.secrets")

MAX_SECRETS = 1000  # of one person
KEPT_VERSIONS = 10
MAX_LISTED = 10_000
_BATCH = 100  # values that are encrypted anew in one transaction
_FIRST = SecretPlace("", "", 0)  # before every place


class Secrets:
    """Keeps secrets. Every call raises Unavailable where the key file is no good."""

    def __init__(
        self,
        database: Database,
        ring: KeyRing,
        cluster: str,
        check_user: Callable[[str], Awaitable[object]],
    ) -> None:
        """``check_user`` raises NotFound for a user who is not there."""
        self._database = database
        self._ring = ring
        self._cluster = cluster
        self._check_user = check_user
        self._rotation = asyncio.Lock()

    def uri(self, owner: str, key: str) -> ResourceURI:
        """The URI of a secret. Raises InvalidInput for what cannot be a key."""
        return ResourceURI("secret", self._cluster, (owner, check_secret_key(key)))

    async def all(self, caller: Identity, uses: Mapping[str, list[str]]) -> list[SecretEntry]:
        """The secrets that a caller may see, by owner and key.

        ``uses`` are the ids of the jobs that use each, by its URI, as far as the caller may see.
        Raises InvalidInput where they are too many for one list.
        """
        shown = caller.scope("secret", self._cluster)
        owners = None if shown.everything else {*shown.owners, *(it[0] for it in shown.singles)}
        listed = partial(tables.listed, owners=owners, limit=MAX_LISTED + 1)
        found = await self._database.read(listed)
        if len(found) > MAX_LISTED:
            raise InvalidInput(f"There are more than {MAX_LISTED} secrets, the most of one list.")
        return [
            self._entry(about, uses)
            for about in found
            if shown.shows(about.place.owner, about.place.key, None)
        ]

    def _entry(self, about: tables.About, uses: Mapping[str, list[str]]) -> SecretEntry:
        owner, key, version = about.place
        uri = str(ResourceURI("secret", self._cluster, (owner, key)))
        return SecretEntry(
            key=key,
            owner=owner,
            uri=uri,
            version=version,
            created_at=about.created_at,
            created_by=about.created_by,
            used_by=uses.get(uri, []),
            project_name=owner,
        )

    async def put(self, caller: Identity, uri: ResourceURI, value: bytes) -> SecretVersion:
        """Make a secret, or give it another value; returns the version that it has then.

        Raises InvalidInput, NotFound, NotPermitted, Conflict where its owner has too many.
        """
        owner, key = uri.segments
        caller.require(uri, Action.WRITE, hidden=_missing(uri))
        check_secret_value(value)
        if owner != caller.user:
            await self._check_user(owner)

        def write(connection: Connection) -> SecretVersion:
            tables.lock(connection)
            return self._add(connection, owner, key, value, caller.user)

        added = await self._database.write(write)
        log.info("secret added", user=caller.user, uri=str(uri), version=added.version)
        return added

    def _add(
        self, connection: Connection, owner: str, key: str, value: bytes, by: str
    ) -> SecretVersion:
        last = tables.newest(connection, owner, key)
        if last is None and tables.count_of(connection, person_of(owner)) >= MAX_SECRETS:
            raise Conflict(
                f"'{person_of(owner)}' has {MAX_SECRETS} secrets, which is the most: remove some"
                " with `neuro secret rm`."
            )
        version = 1 if last is None else last.place.version + 1
        current = self._ring.current(tables.key_ids(connection))
        sealed = _sealed(current, SecretPlace(owner, key, version), value)
        now = datetime.now(UTC)
        tables.add(connection, sealed, now, by)
        tables.drop_before(connection, owner, key, version - KEPT_VERSIONS + 1)
        return SecretVersion(version=version, created_at=now, created_by=by)

    async def versions(self, caller: Identity, uri: ResourceURI) -> list[SecretVersion]:
        """The versions of a secret that are kept, newest first. Raises NotFound."""
        caller.require(uri, Action.READ, hidden=_missing(uri))
        owner, key = uri.segments
        found = await self._database.read(partial(tables.versions_of, owner=owner, key=key))
        if not found:
            raise _missing(uri)
        return [
            SecretVersion(
                version=it.place.version, created_at=it.created_at, created_by=it.created_by
            )
            for it in found
        ]

    async def restore(self, caller: Identity, uri: ResourceURI, version: int) -> SecretVersion:
        """Give a secret the value of an earlier version again, as a new version, which is returned.

        Raises NotFound, NotPermitted, Damaged.
        """
        caller.require(uri, Action.WRITE, hidden=_missing(uri))
        owner, key = uri.segments

        def write(connection: Connection) -> SecretVersion:
            tables.lock(connection)
            sealed = tables.of_version(connection, SecretPlace(owner, key, version))
            if sealed is None:
                raise NotFound(
                    f"{typed_text(uri)} has no version {version}: `neuro secret history"
                    f" {typed_text(uri)}` lists those that are kept."
                )
            return self._add(connection, owner, key, self._open(sealed), caller.user)

        restored = await self._database.write(write)
        log.info("secret restored", user=caller.user, uri=str(uri), version=restored.version)
        return restored

    async def remove(self, caller: Identity, uri: ResourceURI) -> None:
        """Remove a secret with all its versions. Raises NotFound, NotPermitted."""
        caller.require(uri, Action.MANAGE, hidden=_missing(uri))
        owner, key = uri.segments
        if not await self._database.write(partial(tables.drop, owner=owner, key=key)):
            raise _missing(uri)
        log.info("secret removed", user=caller.user, uri=str(uri))

    async def end_all_of(self, owners: Collection[str]) -> None:
        """Remove the secrets of people who were removed."""
        await self._database.write(partial(tables.drop_all_of, owners=owners))

    async def check(self, caller: Identity, uris: Collection[ResourceURI]) -> None:
        """Raise NotFound unless there are all these secrets, and the caller may use them."""
        places = [(owner, key) for owner, key in (uri.segments for uri in uris)]
        there = await self._database.read(partial(tables.present, places=places)) if uris else set()
        for uri, place in zip(uris, places, strict=True):
            is_there = place in there
            may = caller.action_on(uri) is not None
            near = None if is_there and may else await self._near(caller, uri)
            caller.require(uri, Action.READ, hidden=_missing(uri, near))
            if not is_there:
                raise _missing(uri, near)

    async def _near(self, caller: Identity, uri: ResourceURI) -> str | None:
        """The secret that was meant, perhaps: one that the caller may see."""
        owner, key = uri.segments
        owners = {owner, caller.user}
        found = await self._database.read(
            partial(tables.listed, owners=owners, limit=2 * MAX_SECRETS)
        )
        places = [it.place for it in found]
        seen = [it for it in places if caller.action_on(self.uri(it.owner, it.key)) is not None]
        names = get_close_matches(key, {place.key for place in seen}, 1)
        if not names:
            return None
        # Of two of one name, that of the owner who was written.
        best = max((it for it in seen if it.key == names[0]), key=lambda it: it.owner == owner)
        return typed_text(self.uri(best.owner, best.key))

    async def values(
        self, user: Identity, uris: Collection[ResourceURI], job: str
    ) -> dict[ResourceURI, bytes]:
        """What a user's job gets, by what they may use now.

        Raises NotFound for a secret that is gone or that they may not use any more, Damaged.
        """
        for uri in uris:
            if not user.allows(uri, Action.READ):
                raise _gone(uri, user.user)

        def read(connection: Connection) -> dict[ResourceURI, bytes]:
            found = {}
            for uri in uris:
                owner, key = uri.segments
                sealed = tables.newest(connection, owner, key)
                if sealed is None:
                    raise _gone(uri, user.user)
                found[uri] = self._open(sealed)
            return found

        found = await self._database.read(read)
        for uri in found:
            log.info("secret used", user=user.user, uri=str(uri), job=job)
        return found

    def _open(self, sealed: tables.Sealed) -> bytes:
        return unseal(self._ring.key(sealed.key_id), sealed.place, sealed.content)

    async def rotate(self) -> SecretsRotated:
        """Make a new key, and encrypt every value with it, while all goes on.

        What is cut off is made good by the next rotation: earlier keys stay in the file. Raises
        Conflict where that has too many.
        """
        async with self._rotation:
            key = await self._database.write(self._new_key)
            encrypted = unreadable = 0
            after: SecretPlace | None = _FIRST
            while after is not None:
                done, failed, after = await self._database.write(
                    partial(self._encrypt_some, key=key, after=after)
                )
                encrypted, unreadable = encrypted + done, unreadable + failed
        log.info("key of secrets rotated", key=key.id, encrypted=encrypted, unreadable=unreadable)
        return SecretsRotated(
            encrypted=encrypted,
            unreadable=unreadable,
            key_id=key.id,
            key_file=str(self._ring.path),
        )

    def _new_key(self, connection: Connection) -> SecretKey:
        tables.lock(connection)
        self._ring.current(tables.key_ids(connection))
        return self._ring.rotate()

    def _encrypt_some(
        self, connection: Connection, key: SecretKey, after: SecretPlace
    ) -> tuple[int, int, SecretPlace | None]:
        """How many values have the new key now, how many cannot be read, and what came last."""
        tables.lock(connection)
        some = tables.not_of_key(connection, key.id, after, _BATCH)
        again = []
        for one in some:
            try:
                again.append(_sealed(key, one.place, self._open(one)))
            except (Unavailable, Damaged) as error:
                log.error("a secret cannot be read", place=one.place[:2], why=error.message)
        tables.put_in_place(connection, again)
        last = some[-1].place if some else None
        return len(again), len(some) - len(again), last


def _sealed(key: SecretKey, place: SecretPlace, value: bytes) -> tables.Sealed:
    return tables.Sealed(place, key.id, seal(key, place, value))


def _missing(uri: ResourceURI, near: str | None = None) -> NotFound:
    meant = f" Did you mean '{near}'?" if near is not None else ""
    return NotFound(
        f"The secret '{typed_text(uri)}' does not exist, or you may not use it.{meant}"
        " `neuro secret ls` lists those that you may use."
    )


def _gone(uri: ResourceURI, user: str) -> NotFound:
    return NotFound(
        f"The secret '{typed_text(uri)}' does not exist any more, or '{user}' may not use it any"
        " more: add it again, or have it shared, and run the job again."
    )
