"""What the registry knows of this engine: its settings, and how it is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from neuro.docker.places import EVERYWHERE
from neuro.domain.ranges import Size
from neuro.domain.sizes import parse_bytes
from neuro.engines.docker.engine import DockerEngine, examine
from neuro.engines.docker.settings import DockerSettings
from neuro.engines.registry import EngineSettings, Kind, Site
from neuro.engines.sandbox.output import Retention


class Table(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]`` of this kind.

    ``host`` is where the daemon listens, such as unix:///run/docker.sock; ``log_limit`` is the size
    of one job's output that is kept. ``builder`` is who builds images: the platform's own builder,
    or the daemon's BuildKit.
    """

    host: str | None = None
    log_limit: int | str = "1G"
    builder: Literal["embedded", "buildkit"] = "embedded"


def make(site: Site, table: Table, places: Sequence[str] = EVERYWHERE) -> DockerEngine:
    """An engine that is not open yet."""
    return DockerEngine(site.folder, _settings(table, places), site.storage)


def check(table: Table, places: Sequence[str] = EVERYWHERE) -> None:
    """Look at the daemon. Raises EngineFault."""
    examine(_settings(table, places))


def _settings(table: Table, places: Sequence[str]) -> DockerSettings:
    retention = Retention(total=parse_bytes(table.log_limit))
    builds = table.builder == "buildkit"
    return DockerSettings(host=table.host, places=places, retention=retention, builds=builds)


KIND = Kind(
    settings=Table,
    make=make,
    of_this_machine=True,
    has_images=lambda table: True,
    check=check,
    rules={"log_limit": Size()},
)
