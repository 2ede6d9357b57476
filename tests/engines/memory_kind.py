"""What the registry knows of the engine in memory; see ``tests.servers.main``."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec

from neuro.domain.ranges import Range
from neuro.engines.base import Node, NodesChanged, NotReady
from neuro.engines.registry import EngineSettings, Kind, Site
from tests.engines.memory import MemoryEngine


class Table(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]`` of this kind.

    ``nodes`` is a file with its nodes as JSON. It is read again when the server gets SIGUSR1.
    ``away`` is a file: while there is one, the engine is away, because of what stands in it; the
    same signal lets a server that has the engine look again. ``host_address`` is where its jobs
    would look for the server.
    """

    log_bytes: int = 10**9
    nodes: str = ""
    away: str = ""
    host_address: str = "127.0.0.1"


class FileOfNodes(MemoryEngine):
    """One whose nodes are in a file."""

    def __init__(self, path: Path, *, log_limit: int) -> None:
        super().__init__(log_limit=log_limit, nodes=read_nodes(path))
        self._path = path

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: self.offer(*read_nodes(self._path)))


class NowAndThen(MemoryEngine):
    """One that is away while there is a file."""

    def __init__(self, path: Path, *, log_limit: int) -> None:
        super().__init__(log_limit=log_limit)
        self._path = path

    async def open(self) -> None:
        self._check()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, lambda: self.tell(NodesChanged()))

    async def nodes(self) -> list[Node]:
        self._check()
        return await super().nodes()

    def _check(self) -> None:
        if self._path.exists():
            raise NotReady(self._path.read_text())


def read_nodes(path: Path) -> list[Node]:
    return msgspec.json.decode(path.read_bytes(), type=list[Node])


def make(site: Site, table: Table) -> MemoryEngine:
    engine = _made(site, table)
    engine.host_address = table.host_address
    return engine


def _made(site: Site, table: Table) -> MemoryEngine:
    if table.nodes:
        return FileOfNodes(Path(table.nodes), log_limit=table.log_bytes)
    if table.away:
        return NowAndThen(Path(table.away), log_limit=table.log_bytes)
    return MemoryEngine(log_limit=table.log_bytes, storage=site.storage)


KIND = Kind(
    settings=Table,
    make=make,
    of_this_machine=False,
    has_images=lambda table: False,
    rules={"log_bytes": Range("bytes", 1, 10**12)},
)
