"""Cache entries over HTTP."""

from __future__ import annotations

import msgspec

from neuro.domain.bakes import CacheEntry, CacheEntryRequest
from neuro.server.bakes.cache.service import CacheService
from neuro.server.bakes.checks import MAX_BODY
from neuro.server.http.routes import Call, Routes

ENTRIES = "/api/v1/flow/cache_entries"


class ByKey(msgspec.Struct, frozen=True):
    project_id: str
    batch: str
    task_id: str
    key: str


class Matching(msgspec.Struct, frozen=True):
    """All that is given must match."""

    project_id: str
    batch: str | None = None
    task_id: str | None = None


def add_cache_entries(api: Routes, cache: CacheService) -> None:
    """Declare the routes of cache entries."""

    @api.add("POST", ENTRIES, status=201, section="flows", max_body=MAX_BODY)
    async def put_cache_entry(call: Call, body: CacheEntryRequest) -> CacheEntry:
        """Keep the outcome of a task, over the one of the same key."""
        return await cache.put(call.identity, body)

    @api.add("DELETE", ENTRIES, status=204, section="flows")
    async def clear_cache(call: Call, query: Matching) -> None:
        """Forget a project's outcomes, or those of a batch or a task."""
        await cache.clear(call.identity, query.project_id, query.batch, query.task_id)

    @api.add("GET", f"{ENTRIES}/by_key", section="flows")
    async def cache_entry_by_key(call: Call, query: ByKey) -> CacheEntry:
        """The outcome that is kept under a key."""
        return await cache.by_key(
            call.identity, query.project_id, query.batch, query.task_id, query.key
        )

    @api.add("GET", ENTRIES + "/{entry}", section="flows")
    async def get_cache_entry(call: Call) -> CacheEntry:
        """A cache entry by its id."""
        return await cache.entry(call.identity, call.segment("entry"))
