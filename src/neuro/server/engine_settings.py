"""What ``server.toml`` says of engines: which there are, and what each is made of.

The embedded engine, ``sandbox``, is always there: the platform's own commands run on it. The one
that presets run on where they name none needs no section.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from neuro.domain.errors import Conflict
from neuro.domain.names import check_engine_name
from neuro.domain.resources import NOTHING, Amount
from neuro.domain.sizes import parse_bytes
from neuro.engines.base import Engine, Node
from neuro.engines.registry import COMMON_RULES, KINDS, EngineSettings, Site, kind_of
from neuro.engines.storage import Storage
from neuro.server.settings_places import Misplaced, check_shape, placed
from neuro.server.settings_rules import check_values

if TYPE_CHECKING:
    from neuro.server.settings import Settings

DEFAULT_ENGINE = "sandbox"


def engine_settings(settings: Settings) -> dict[str, EngineSettings]:
    """The settings of all engines, by their names. Raises InvalidInput."""
    if settings.engine not in {*KINDS, *settings.engines}:
        known = listed(sorted({*KINDS, *settings.engines}))
        raise Misplaced(("engine",), f"engine is '{settings.engine}': it must be one of {known}")
    tables = {DEFAULT_ENGINE: {}, settings.engine: {}, **settings.engines}
    made = {name: _settings_of(settings, name, table) for name, table in tables.items()}
    _check_builders(made)
    sharing = [
        name
        for name, one in made.items()
        if kind_of(kind_name(name, one)).of_this_machine
        and (name != DEFAULT_ENGINE or _has_presets(settings, name))
    ]
    for name in sharing:
        if len(sharing) > 1 and (made[name].cpu is None or made[name].memory is None):
            others = " and ".join(f"'{other}'" for other in sharing if other != name)
            raise Misplaced(
                ("engines", name),
                f"engine '{name}' shares this machine with {others}: give each of them cpu and"
                " memory",
            )
    return made


def _check_builders(made: Mapping[str, EngineSettings]) -> None:
    """Raise Misplaced for a daemon that builds where networks are closed to jobs."""
    # Of these two kinds alone; neither has to be loaded for that.
    closed = [name for name, one in made.items() if not getattr(one, "private_networks", True)]
    for name, one in made.items():
        if closed and getattr(one, "builder", "") == "buildkit":
            raise Misplaced(
                ("engines", name, "builder"),
                f"engine '{name}': builder is \"buildkit\", whose commands reach private networks,"
                f" and these are closed to jobs of the engine '{closed[0]}' ([network] private ="
                " false): leave builder out, or open the networks",
            )


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["docker", "podman", "sandbox"])
    'docker, podman or sandbox'
    """
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _has_presets(settings: Settings, engine: str) -> bool:
    """Whether presets may run on an engine; the embedded one has main jobs all the same."""
    return engine in {settings.engine, *(preset.engine for preset in settings.presets)}


def kind_name(name: str, settings: EngineSettings) -> str:
    """Of which kind an engine is."""
    return settings.kind or name


def site_of(
    name: str,
    data: Path,
    port: int,
    storage: Storage | None = None,
    open_files: int | None = None,
) -> Site:
    """Where an engine is: its runs reach ``port`` of this machine, and never see ``data``."""
    return Site(data / "engines" / name, data, port, storage, open_files)


def make_engines(
    settings: Settings,
    names: Mapping[str, str],
    data: Path,
    port: int,
    storage: Storage,
    open_files: int | None = None,
) -> dict[str, Engine]:
    """All engines, by their public ``names``; none is open yet. Raises InvalidInput."""
    return {
        names[name]: kind_of(kind_name(name, one)).make(
            site_of(name, data, port, storage, open_files), one
        )
        for name, one in engine_settings(settings).items()
    }


@dataclass(frozen=True)
class Share:
    """What jobs may have of an engine: ``cpu`` and ``memory`` together, None for all there is."""

    cpu: float | None = None
    memory: int | None = None
    gpus: bool = True

    def __call__(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes as jobs may use them: each gives the same part of what it has."""
        whole = total(nodes)
        cpu = whole.cpu if self.cpu is None else self.cpu
        memory = whole.memory if self.memory is None else self.memory
        return [
            replace(
                node,
                cpu=round(node.cpu * cpu / (whole.cpu or 1.0), 3),
                memory=node.memory * memory // (whole.memory or 1),
                gpus=node.gpus if self.gpus else (),
            )
            for node in nodes
        ]


def total(nodes: Iterable[Node]) -> Amount:
    """What nodes have together."""
    return sum((node.amount for node in nodes), NOTHING)


def shares_of(every: Mapping[str, EngineSettings], usual: str) -> dict[str, Share]:
    """What jobs may take of each engine.

    The GPUs of a machine are all the ``usual`` engine's, on which presets run that name none; if it
    has no part of the machine, they are the first one's that has.
    """
    own = [name for name, one in every.items() if kind_of(kind_name(name, one)).of_this_machine]
    holder = usual if usual in own else next(iter(own), None)
    shares = {}
    for name, one in every.items():
        gpus = name == holder or name not in own
        memory = None if one.memory is None else parse_bytes(one.memory)
        shares[name] = Share(one.cpu, memory, gpus)
    return shares


def check_in_use(names: Mapping[str, str], in_use: Mapping[str, int]) -> None:
    """Raise Conflict for an engine that there is not, and that has jobs which are not over.

    ``names`` are the public names of the engines of the settings by the settings' own, ``in_use``
    is how many such jobs each engine has, by its public name.
    """
    for public, count in sorted(in_use.items()):
        if public in names.values():
            continue
        jobs = "1 job on it is" if count == 1 else f"{count} jobs on it are"
        back = f"[engines.{public}]"
        if public in names or any(public.startswith(f"{name}-") for name in names):
            back += ", or `name` below [server] as it was,"
        raise Conflict(
            f"The engine '{public}' is not in server.toml any more, and {jobs} not over: put {back}"
            " back, end them with `neuro kill`, and then remove it."
        )


def _settings_of(settings: Settings, name: str, table: Mapping[str, Any]) -> EngineSettings:
    at = ("engines", name)
    with placed(at):
        check_engine_name(name)
    kind = table.get("kind", name)
    if not isinstance(kind, str) or kind not in KINDS:
        known = listed(sorted(KINDS))
        if "kind" not in table:
            raise Misplaced(at, f"engines.{name} needs 'kind': it must be {known}")
        raise Misplaced(
            (*at, "kind"),
            f"engine '{name}': kind is {kind!r}, which this server does not have: it must be"
            f" {known}",
        )
    known_kind = kind_of(kind)
    check_shape(known_kind.settings, table, at)
    made = msgspec.convert(
        {**_of_other_sections(settings, name, kind), **table}, known_kind.settings
    )
    check_values(made, {**COMMON_RULES, **known_kind.rules}, at)
    return made


def _of_other_sections(settings: Settings, name: str, kind: str) -> dict[str, Any]:
    """What sections that are older than ``[engines]`` say of an engine."""
    found: dict[str, Any] = {}
    if kind == DEFAULT_ENGINE:
        found = {
            **msgspec.structs.asdict(settings.sandbox),
            "private_networks": settings.network.private,
            "shared_network": settings.network.shared,
            "log_limit": settings.log_limit,
        }
    if name == DEFAULT_ENGINE:
        found |= msgspec.structs.asdict(settings.capacity)
        found["main_jobs_memory"] = settings.bakes.main_jobs_memory
    return found
