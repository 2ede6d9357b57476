"""The parts of a server, and what they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from neuro.engines.base import Engine
from neuro.server.access.departure import Departures
from neuro.server.access.service import AccessService
from neuro.server.background import Background
from neuro.server.bakes.assembly import BakeServices
from neuro.server.database.engine import Database
from neuro.server.fleet.assembly import Fleet
from neuro.server.jobs.arrivals import Arrivals
from neuro.server.jobs.assembly import Jobs, Means
from neuro.server.projects.service import ProjectService
from neuro.server.registry.assembly import Images
from neuro.server.secrets.service import Secrets
from neuro.server.settings import Settings
from neuro.server.storage.service import StorageService
from neuro.server.supervision.assembly import Supervision


@dataclass(frozen=True)
class Ground:
    """What every part stands on; ``means`` is what the engines have, ``port`` where it listens.

    ``url`` is the API's for clients on this machine.
    """

    folder: Path
    settings: Settings
    database: Database
    engines: Mapping[str, Engine]
    means: Means
    access: AccessService
    storage: StorageService
    secrets: Secrets
    background: Background
    fleet: Fleet
    arrivals: Arrivals
    port: int
    url: str

    @property
    def registry(self) -> str:
        """The host of the platform's registry, for clients on this machine."""
        return urlsplit(self.url).netloc

    @property
    def jobs_domain(self) -> str:
        """The host of the pages that jobs serve."""
        return self.settings.jobs_domain or f"localhost:{self.port}"


@dataclass(frozen=True)
class Parts:
    """What the routes and the clock call."""

    jobs: Jobs
    projects: ProjectService
    bakes: BakeServices
    supervision: Supervision
    departures: Departures
    images: Images
