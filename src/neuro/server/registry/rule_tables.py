"""SQL of the rules of owners, and of what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, select

from neuro.domain.image_upkeep import ImageRules, ImageRulesInForce
from neuro.server.registry.blob_tables import written_over
from neuro.server.registry.errors import RegistryError
from neuro.server.registry.rules import KeptTag, in_force, prefixes
from neuro.server.registry.tables import manifests, references, repositories, rules, tags

MAX_INDEXES = 1000  # that are looked at for whether a tag leads through them to an image

_decode = msgspec.json.Decoder(ImageRules).decode


class RuledRepository(NamedTuple):
    """A repository for which there may be rules."""

    id: int
    path: str


class ListedTag(NamedTuple):
    """A tag with all that is told of it; ``size`` in bytes."""

    kept: KeptTag
    digest: str
    size: int


def find_rules(
    connection: Connection, path: str, usual: Mapping[str, ImageRules] = MappingProxyType({})
) -> ImageRulesInForce:
    """The rules that hold for a repository, or for what names begin with.

    ``usual`` are those of paths that have none of their own.
    """
    found = connection.execute(select(rules).where(rules.c.path.in_(prefixes(path))))
    return in_force(path, {**usual, **{row.path: _decode(row.rules) for row in found}})


def put_rules(connection: Connection, path: str, new: ImageRules) -> None:
    """Let rules hold in place of those of the same path."""
    connection.execute(
        written_over(connection.dialect.name, rules, "rules"),
        {"path": path, "rules": msgspec.json.encode(new)},
    )


def remove_rules(connection: Connection, path: str) -> bool:
    """Remove the rules of a path; False where it has none."""
    return connection.execute(delete(rules).where(rules.c.path == path)).rowcount > 0


def count_rules(connection: Connection, owner: str) -> int:
    """How many paths of an owner have rules."""
    mine = (rules.c.path == owner) | rules.c.path.startswith(f"{owner}/", autoescape=True)
    return connection.execute(select(func.count()).select_from(rules).where(mine)).scalar_one()


def ruled_owners(connection: Connection) -> list[str]:
    """Owners of whom there are rules, by name."""
    paths = connection.execute(select(rules.c.path)).scalars()
    return sorted({path.partition("/")[0] for path in paths})


def rules_of(connection: Connection, owner: str) -> dict[str, ImageRules]:
    """All rules of an owner, by their paths."""
    mine = (rules.c.path == owner) | rules.c.path.startswith(f"{owner}/", autoescape=True)
    return {row.path: _decode(row.rules) for row in connection.execute(select(rules).where(mine))}


def repositories_of(connection: Connection, owner: str) -> list[RuledRepository]:
    """The repositories of an owner."""
    found = connection.execute(
        select(repositories.c.id, repositories.c.path).where(repositories.c.owner == owner)
    )
    return [RuledRepository(row.id, row.path) for row in found]


_TAGS = select(
    tags.c.tag, tags.c.set_at, manifests.c.pulled_at, tags.c.digest, manifests.c.size
).join(
    manifests,
    (manifests.c.repository_id == tags.c.repository_id) & (manifests.c.digest == tags.c.digest),
)


def tags_of(connection: Connection, repository_id: int) -> list[KeptTag]:
    """All tags of a repository."""
    found = connection.execute(_TAGS.where(tags.c.repository_id == repository_id))
    return [KeptTag(row.tag, row.set_at, row.pulled_at) for row in found]


def list_tags(
    connection: Connection, repository_id: int, after: str, limit: int
) -> list[ListedTag]:
    """Tags behind ``after``, by name."""
    found = connection.execute(
        _TAGS.where(tags.c.repository_id == repository_id, tags.c.tag > after)
        .order_by(tags.c.tag)
        .limit(limit)
    )
    return [
        ListedTag(KeptTag(row.tag, row.set_at, row.pulled_at), row.digest, row.size)
        for row in found
    ]


def moved(
    connection: Connection, repository_id: int, names: Sequence[str], digest: str
) -> list[str]:
    """Those of some tags that lead to another image."""
    mine = tags.c.repository_id == repository_id, tags.c.tag.in_(names)
    return list(
        connection.execute(
            select(tags.c.tag).where(*mine, tags.c.digest != digest).order_by(tags.c.tag)
        ).scalars()
    )


def leading_to(connection: Connection, repository_id: int, digest: str) -> list[str]:
    """The tags that lead to an image, itself or through indexes that it is a part of.

    Raises RegistryError DENIED where there are more of these indexes than are looked at.
    """
    known = {digest}
    lowest = [digest]
    while lowest:
        found = connection.execute(
            select(references.c.manifest)
            .where(references.c.repository_id == repository_id, references.c.digest.in_(lowest))
            .distinct()
            .limit(MAX_INDEXES + 1)
        ).scalars()
        lowest = [index for index in found if index not in known]
        known.update(lowest)
        if len(known) > MAX_INDEXES + 1:
            raise RegistryError(
                "DENIED",
                403,
                f"More than {MAX_INDEXES} indexes lead to {digest}, and some tags here are"
                " immutable: remove indexes first that no such tag needs.",
            )
    mine = tags.c.repository_id == repository_id, tags.c.digest.in_(known)
    return list(connection.execute(select(tags.c.tag).where(*mine)).scalars())


def existing(connection: Connection, repository_id: int, name: str) -> list[str]:
    """The tag of this name, if there is one."""
    mine = tags.c.repository_id == repository_id, tags.c.tag == name
    return list(connection.execute(select(tags.c.tag).where(*mine)).scalars())
