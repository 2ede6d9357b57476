"""Composes what images are kept with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from neuro.domain.permissions import Action, Permission
from neuro.domain.sizes import parse_bytes
from neuro.domain.uris import ResourceURI
from neuro.engines.images.references import Reference
from neuro.engines.runs import PullCredentials
from neuro.engines.sandbox.firewall import refused
from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.census import Census
from neuro.server.registry.collection import Collection
from neuro.server.registry.mirrors import USUAL_RULES, Mirror, Mirrors
from neuro.server.registry.quotas import Quotas
from neuro.server.registry.scrub import Scrub
from neuro.server.registry.service import GRACE, RegistryService
from neuro.server.registry.upkeep import Upkeep
from neuro.server.settings import ImageSetting, MirrorSetting


@dataclass(frozen=True)
class Images:
    """All that works on one store: for clients, for the clock, and for administrators."""

    registry: RegistryService
    collection: Collection
    census: Census
    upkeep: Upkeep
    scrub: Scrub
    mirrors: Mirrors


def mirrors_of(settings: Sequence[MirrorSetting]) -> dict[str, Mirror]:
    """The mirrors that the settings have, by the names of their registries."""
    return {
        one.registry: Mirror(
            one.registry,
            one.host or Reference(one.registry, "", "", "").host,
            parse_bytes(one.size),
            None
            if one.user is None or one.password is None
            else PullCredentials(one.user, one.password),
            one.insecure,
        )
        for one in settings
    }


def readable_by_all(settings: Sequence[MirrorSetting], cluster: str) -> list[Permission]:
    """What everybody may read who is signed in: all that comes through mirrors."""
    return [
        Permission(ResourceURI("image", cluster, (one.registry,)), Action.READ) for one in settings
    ]


async def open_images(
    stack: AsyncExitStack, database: Database, folder: Path, cluster: str, settings: ImageSetting
) -> Images:
    """What keeps images in ``folder``; ``stack`` closes it."""
    store = await asyncio.to_thread(BlobStore, folder)
    registry = RegistryService(database, store, cluster, quotas=Quotas(parse_bytes(settings.quota)))
    stack.push_async_callback(registry.close)
    collection = Collection(database, store, GRACE)
    stack.push_async_callback(collection.close)
    census = Census(database, store, GRACE)
    stack.push_async_callback(census.close)
    scrub = Scrub(database, store)
    stack.push_async_callback(scrub.close)
    mirrors = Mirrors(database, store, mirrors_of(settings.mirrors), refused(private=False))
    stack.push_async_callback(mirrors.close)
    upkeep = Upkeep(database, {one.registry: USUAL_RULES for one in settings.mirrors})
    return Images(registry, collection, census, upkeep, scrub, mirrors)
