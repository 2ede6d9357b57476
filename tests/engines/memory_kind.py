"""What the registry knows of the engine in memory; see ``tests.servers.main``."""

from __future__ import annotations

from neuro.engines.registry import EngineSettings, Kind, Site
from tests.engines.memory import MemoryEngine


class Table(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]`` of this kind."""

    log_bytes: str = "1000000000"


def make(site: Site, table: Table) -> MemoryEngine:
    return MemoryEngine(log_limit=int(table.log_bytes), storage=site.storage)


KIND = Kind(settings=Table, make=make, of_this_machine=False, has_images=False)
