"""Which engine a new data folder begins with: one that the machine has, and that can be used.

Whatever a folder began with stays, so nobody's presets move to another engine by an upgrade.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.docker.places import DOCKER, PODMAN
from neuro.domain.errors import InvalidInput
from neuro.server.engine_settings import DEFAULT_ENGINE
from neuro.server.settings import is_new, written_engine

if TYPE_CHECKING:
    from neuro.engines.docker.finding import Found


@dataclass(frozen=True)
class Choice:
    """An engine, and a sentence for whoever starts the server: ``why`` it is that one.

    There is none where they have said so.
    """

    engine: str
    why: str | None


def choose(folder: Path, given: str | None) -> Choice | None:
    """What is to be decided at this start; None where it is decided already.

    ``given`` is what the command line says. Raises InvalidInput where the settings say another.
    """
    written = written_engine(folder / "server.toml")
    if given is not None:
        if written not in (None, given):
            raise InvalidInput(
                f'{folder}/server.toml says engine = "{written}", and the command line {given}:'
                " change one of them"
            )
        return Choice(given, None)
    if written is not None or not is_new(folder):
        return None
    from neuro.engines.docker.finding import find  # Only a first start looks.

    return best({"docker": find(DOCKER, os.environ), "podman": find(PODMAN, {})})


def best(found: Mapping[str, Found | None]) -> Choice:
    """The first engine that can be used, else the embedded one; ``found`` are in their order."""
    lacks = []
    for engine, one in found.items():
        if one is None:
            continue
        if one.lack is None:
            return Choice(
                engine,
                f"Jobs run on {engine}, which answers at {one.place}. For the sandbox: `neuro down`"
                f" and `neuro up --engine {DEFAULT_ENGINE}`.",
            )
        lacks.append(f"{engine} answers at {one.place}, but {one.lack}")
    why = "; ".join(lacks) or f"neither {' nor '.join(found)} answers here"
    return Choice(DEFAULT_ENGINE, f"Jobs run in the sandbox: {why}.")
