"""What the registry knows of this engine; see ``tests.servers.main``."""

from __future__ import annotations

from pathlib import Path

from neuro.engines.registry import EngineSettings, Kind, Site
from tests.engines.plain.engine import PlainEngine


class Table(EngineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]`` of this kind: where its state is, whichever server looks after it.

    ``gpus`` are as many as there are words in it: no process here sees any.
    """

    folder: str
    gpus: str = ""


def make(site: Site, table: Table) -> PlainEngine:
    return PlainEngine(Path(table.folder), gpus=len(table.gpus.split()), storage=site.storage)


KIND = Kind(settings=Table, make=make, of_this_machine=False, has_images=lambda table: False)
