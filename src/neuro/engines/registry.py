"""Which kinds of engines there are, and how an engine is made of its settings.

A new kind is a folder here with a module that has a ``KIND``, and a line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from neuro.domain.ranges import CORES, Range, Size
from neuro.engines.base import Engine
from neuro.engines.storage import Storage

KINDS: Mapping[str, str] = {
    "sandbox": "neuro.engines.sandbox.kind",
    "docker": "neuro.engines.docker.kind",
    "podman": "neuro.engines.docker.podman",
}


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engines.NAME]``: the keys of every kind. Each kind has a class of its own, with more.

    ``kind`` is the name's where nothing is said. ``cpu`` (cores) and ``memory`` (bytes, or a text
    such as "2G") are what jobs may take of it together, by default all that it has.
    """

    kind: str | None = None
    cpu: float | None = None
    memory: int | str | None = None


COMMON_RULES: Mapping[str, Range | Size] = {"cpu": CORES, "memory": Size()}


@dataclass(frozen=True)
class Site:
    """Where an engine is: ``folder`` is for its files, and jobs never see ``data``.

    ``port`` of this machine is the API's. ``storage`` is where volumes are. ``open_files`` is the
    soft limit of descriptors that jobs begin with, None for the server's own.
    """

    folder: Path
    data: Path
    port: int
    storage: Storage | None = None
    open_files: int | None = None


@dataclass(frozen=True)
class Kind:
    """One kind of engines.

    ``make`` is given a ``Site`` and ``settings``. ``rules`` are what the numbers and sizes of these
    may be, by their keys; each has one. Engines that have a part ``of_this_machine``
    share it with each other. With settings that ``has_images`` is true of, an image is
    what a job starts from, and not a name alone.

    ``check``, given the settings, raises EngineFault where an engine could not be opened now, and
    changes nothing.

    What an engine cannot do with a run, it has no method for: see ``base.Attaches`` and its kin.
    """

    settings: type[EngineSettings]
    make: Callable[[Site, Any], Engine]
    of_this_machine: bool
    has_images: Callable[[Any], bool]
    rules: Mapping[str, Range | Size] = field(default_factory=dict)
    check: Callable[[Any], None] | None = None


def kind_of(name: str) -> Kind:
    """The kind that is called ``name``. Raises KeyError."""
    kind = import_module(KINDS[name]).KIND
    assert isinstance(kind, Kind)
    return kind
