"""How much of the disk a person's images may take: what counts, and what is refused."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, func, or_, select

from neuro.domain.image_upkeep import ImageQuota
from neuro.server.access.people import is_of, person_of
from neuro.server.database.transactions import alone
from neuro.server.registry.blob_tables import written_over
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.tables import blobs, links, manifests, quotas, repositories, uploads


class Quotas:
    """The quotas of people. What several images have counts once for each person.

    ``default`` is the bytes of everybody whose quota nobody has set; 0 is no limit.
    """

    def __init__(self, default: int) -> None:
        self._default = default

    def find(self, connection: Connection, owner: str) -> ImageQuota:
        """How much a person's images may take, and do take."""
        return ImageQuota(
            owner=person_of(owner),
            size=self.size_of(connection, owner),
            used=_used(connection, owner),
        )

    def size_of(self, connection: Connection, owner: str) -> int | None:
        """How many bytes the images of a person may take; None: any number."""
        size = connection.execute(
            select(quotas.c.size).where(quotas.c.owner == person_of(owner))
        ).scalar_one_or_none()
        return (self._default if size is None else size) or None

    def all(self, connection: Connection, after: str, limit: int) -> list[ImageQuota]:
        """The quotas of people behind ``after`` who have images, by name."""
        owners = connection.execute(
            select(repositories.c.owner)
            .where(repositories.c.owner > after)
            .distinct()
            .order_by(repositories.c.owner)
            .limit(limit)
        ).scalars()
        people = sorted({person_of(owner) for owner in owners} - {person_of(after)})
        return [self.find(connection, person) for person in people]

    def set(self, connection: Connection, owner: str, size: int | None) -> None:
        """Let a person have a quota of bytes; 0: no limit; None: what all have."""
        person = person_of(owner)
        if size is None:
            connection.execute(delete(quotas).where(quotas.c.owner == person))
        else:
            connection.execute(
                written_over(connection.dialect.name, quotas, "size"),
                {"owner": person, "size": size},
            )

    def check(self, connection: Connection, owner: str, more: int = 0) -> None:
        """Raise RegistryError DENIED where ``more`` bytes go over a person's quota.

        Where there is one, nobody else adds anything until the transaction's end. It is the first
        thing that is done in one, before anything else is locked.
        """
        size = self.size_of(connection, owner)
        if size is None:
            return
        alone(connection, f"images of {person_of(owner)}")
        used = _used(connection, owner)
        if used + more > size:
            raise over_quota(owner, size, used)

    def check_blob(self, connection: Connection, owner: str, digest: str, size: int) -> None:
        """The same for a blob: one that they have already takes nothing."""
        mine = _of(owner), links.c.digest == digest
        has = select(links.c.digest).join(repositories).where(*mine).limit(1)
        if connection.execute(has).first() is None:
            self.check(connection, owner, size)

    def room(self, connection: Connection, owner: str, upload_ids: list[str]) -> int | None:
        """How many bytes may come for a person; None: any number.

        ``upload_ids`` gets the ids of their uploads, which take something as well.
        """
        size = self.size_of(connection, owner)
        if size is None:
            return None
        person = person_of(owner)
        to_theirs = or_(
            uploads.c.path.startswith(f"{person}/", autoescape=True),
            uploads.c.path.startswith(f"{person}--", autoescape=True),
        )
        upload_ids += connection.execute(select(uploads.c.id).where(to_theirs)).scalars()
        used = _used(connection, owner)
        if used >= size:
            raise over_quota(owner, size, used)
        return size - used


def does_not_fit(owner: str, room: int) -> RegistryError:
    """An upload that is larger than what is left."""
    return RegistryError(
        "DENIED",
        403,
        f"The images of '{person_of(owner)}' have {_mib(room)} left of their quota, uploads that"
        " have not ended included, and this push is larger. Remove some with `neuro image rm`,"
        " which frees their room a day later, or ask an administrator for a larger quota.",
        {"left": room},
    )


def over_quota(owner: str, size: int, used: int) -> RegistryError:
    """A push that does not fit any more."""
    return RegistryError(
        "DENIED",
        403,
        f"The images of '{person_of(owner)}' may take {_mib(size)}, and {_mib(used)} are taken:"
        " this push does not fit. Remove some with `neuro image rm`, which frees their room a day"
        " later, or ask an administrator for a larger quota.",
        {"quota": size, "used": used},
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _of(owner: str) -> ColumnElement[bool]:
    return is_of(repositories.c.owner, owner)


def _used(connection: Connection, owner: str) -> int:
    theirs = select(links.c.digest).join(repositories).where(_of(owner))
    layers = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.digest.in_(theirs))
    contents = (
        select(func.coalesce(func.sum(func.length(manifests.c.content)), 0))
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(_of(owner))
    )
    return int(connection.execute(layers).scalar_one()) + int(
        connection.execute(contents).scalar_one()
    )
