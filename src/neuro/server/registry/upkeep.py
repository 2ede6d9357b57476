"""What owners say of their images: rules of what stays, and the sweep that follows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import structlog
from sqlalchemy import Connection

from neuro.domain.errors import NotFound, TooManyRequests
from neuro.domain.image_upkeep import ImageRules, ImageRulesInForce, ImageTag
from neuro.server.database.engine import Database
from neuro.server.registry import blob_tables, manifest_tables, rule_tables
from neuro.server.registry.errors import unknown_repository
from neuro.server.registry.names import Repository
from neuro.server.registry.rules import check_rules, in_force, matches, outdated

log = structlog.get_logger("neuro.registry")

MAX_RULES = 1000  # of one owner
_AT_ONCE = 500  # tags in one transaction


def _now() -> datetime:
    return datetime.now(UTC)


class Upkeep:
    """Rules of images; ``sweep`` removes the tags that they let go."""

    def __init__(
        self,
        database: Database,
        usual: Mapping[str, ImageRules] = MappingProxyType({}),
        now: Callable[[], datetime] = _now,
    ) -> None:
        """``usual`` are the rules of owners for whom nobody has set any."""
        self._database = database
        self._usual = usual
        self._now = now

    async def rules(self, place: Repository) -> ImageRulesInForce:
        """The rules that hold for an image, or for all whose names begin so."""
        return await self._database.read(
            lambda c: rule_tables.find_rules(c, place.path, self._usual)
        )

    async def set_rules(self, place: Repository, rules: ImageRules) -> None:
        """Let rules hold in place of those of the same name. Raises InvalidInput."""
        check_rules(rules)

        def put(connection: Connection) -> None:
            rule_tables.put_rules(connection, place.path, rules)
            if rule_tables.count_rules(connection, place.owner) > MAX_RULES:
                raise TooManyRequests(
                    f"{MAX_RULES} images of '{place.owner}' have rules of their own, which is the"
                    f" most: set rules for image:/{place.owner}, which hold for all others.",
                    retry_after=60.0,
                )

        await self._database.write(put)

    async def remove_rules(self, place: Repository) -> None:
        """Let rules hold no more. Raises NotFound where there are none of this name."""
        if not await self._database.write(lambda c: rule_tables.remove_rules(c, place.path)):
            raise NotFound(f"There are no rules of image:/{place.path} itself.")

    async def tags(self, repository: Repository, after: str, limit: int) -> list[ImageTag]:
        """Tags behind ``after``, by name. Raises RegistryError NAME_UNKNOWN."""

        def find(connection: Connection) -> list[ImageTag]:
            repository_id = blob_tables.find_repository(connection, repository.path)
            if repository_id is None:
                raise unknown_repository(repository.path)
            rules = rule_tables.find_rules(connection, repository.path, self._usual).rules
            listed = rule_tables.list_tags(connection, repository_id, after, limit)
            return [
                ImageTag(
                    tag=kept.tag,
                    digest=digest,
                    size=size,
                    pushed_at=kept.set_at,
                    pulled_at=kept.pulled_at,
                    is_immutable=matches(kept.tag, rules.immutable),
                )
                for kept, digest, size in listed
            ]

        return await self._database.read(find)

    async def sweep(self) -> int:
        """Remove the tags that no rule keeps; returns how many that were."""
        removed = 0
        owners = await self._database.read(rule_tables.ruled_owners)
        for owner in sorted({*owners, *self._usual}):
            own = await self._database.read(partial(rule_tables.rules_of, owner=owner))
            known = {**self._usual, **own}
            for one in await self._database.read(partial(rule_tables.repositories_of, owner=owner)):
                removed += await self._sweep_one(one.id, in_force(one.path, known).rules)
        if removed:
            log.info("tags removed by rules", tags=removed)
        return removed

    async def _sweep_one(self, repository_id: int, rules: ImageRules) -> int:
        now = self._now()

        def gone(connection: Connection) -> list[str]:
            return outdated(rule_tables.tags_of(connection, repository_id), rules, now)

        def remove(connection: Connection) -> int:
            # What was pushed since is newer: it is looked at once more, now that none can be.
            blob_tables.alone_in(connection, repository_id)
            names = gone(connection)[:_AT_ONCE]
            return manifest_tables.remove_tags(connection, repository_id, names, now)

        removed = 0
        while await self._database.read(gone):
            some = await self._database.write(remove)
            removed += some
            if not some:
                break
        return removed
