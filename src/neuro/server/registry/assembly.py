"""Composes what images are kept with."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from neuro.server.database.engine import Database
from neuro.server.registry.blobs import BlobStore
from neuro.server.registry.census import Census
from neuro.server.registry.collection import Collection
from neuro.server.registry.quotas import Quotas
from neuro.server.registry.scrub import Scrub
from neuro.server.registry.service import GRACE, RegistryService
from neuro.server.registry.upkeep import Upkeep


@dataclass(frozen=True)
class Images:
    """All that works on one store: for clients, for the clock, and for administrators."""

    registry: RegistryService
    collection: Collection
    census: Census
    upkeep: Upkeep
    scrub: Scrub


async def open_images(
    stack: AsyncExitStack, database: Database, folder: Path, cluster: str, quota: int
) -> Images:
    """What keeps images in ``folder``; ``stack`` closes it. ``quota`` is everybody's, in bytes."""
    store = await asyncio.to_thread(BlobStore, folder)
    registry = RegistryService(database, store, cluster, quotas=Quotas(quota))
    stack.push_async_callback(registry.close)
    collection = Collection(database, store, GRACE)
    stack.push_async_callback(collection.close)
    census = Census(database, store, GRACE)
    stack.push_async_callback(census.close)
    scrub = Scrub(database, store)
    stack.push_async_callback(scrub.close)
    return Images(registry, collection, census, Upkeep(database), scrub)
