"""What the engines of one server are called among all servers of an installation.

Two servers that have one name for an engine mean the same one, but for engines that are parts of
their machines: these have the name of the server, if it has one, behind theirs. Such an engine
keeps for good the name under which it began, since its jobs and their logs are found by that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.domain.errors import Conflict, InvalidInput
from neuro.domain.names import check_engine_name
from neuro.engines.registry import kind_of
from neuro.server import durable
from neuro.server.engine_settings import engine_settings, kind_name
from neuro.server.settings_places import placed

if TYPE_CHECKING:
    from neuro.server.settings import Settings

_SUFFIX = ".name"


def public_names(settings: Settings, data: Path) -> dict[str, str]:
    """By the name of each engine in the settings; ``data`` is the data folder.

    Raises InvalidInput for a name that gets too long, Conflict for a file of one that is damaged.
    """
    server = settings.server.name
    names = {}
    for name in engine_settings(settings):
        names[name] = name
        if name in of_this_machine(settings):
            begun = f"{name}-{server}" if server is not None else name
            names[name] = _kept(data, name) or begun
        with placed(("server", "name")):
            check_engine_name(names[name])
    return names


def of_this_machine(settings: Settings) -> set[str]:
    """The engines of the settings that no other server can have. Raises InvalidInput."""
    every = engine_settings(settings)
    return {name for name, one in every.items() if kind_of(kind_name(name, one)).of_this_machine}


def keep_names(data: Path, names: Mapping[str, str], engines: Collection[str]) -> None:
    """Write down what these engines are called, for good: they have begun. Raises OSError."""
    for name in engines:
        if _kept(data, name) is None:
            durable.write(_path(data, name), names[name])


def _kept(data: Path, name: str) -> str | None:
    path = _path(data, name)
    try:
        found = path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    try:
        return check_engine_name(found)
    except InvalidInput:
        raise Conflict(
            f"The file {path} is empty or damaged, and has to have the name that the engine of this"
            " machine has in the records of its jobs: put it back from a back-up, or write"
            f" '{name}' in it, with a hyphen and the server's name behind it if the server had one"
            " when it began."
        ) from None


def _path(data: Path, name: str) -> Path:
    # Beside the folder of the engine, all of whose content is the engine's own.
    return data / "engines" / f"{name}{_SUFFIX}"
