"""What ``server.toml`` asks of a machine that has less: allowed, and surely not meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neuro.domain.resources import GIB, Amount, Preset
from neuro.server.jobs.specification import shortage


def remarks(
    tables: Mapping[str, Mapping[str, object]],
    presets: Iterable[Preset],
    machines: Mapping[str, Amount],
    capacities: Mapping[str, Amount],
) -> Iterator[str]:
    """Sentences for the administrator, without a full stop.

    ``tables`` are ``[engines.NAME]`` as they are written, ``machines`` all that each engine has,
    and ``capacities`` what jobs may take of those that are there. The first of the ``presets`` is
    the default.
    """
    for name, capacity in capacities.items():
        machine, table = machines[name], tables.get(name, {})
        if capacity.cpu > machine.cpu + 1e-3:
            key = f"engines.{name}.cpu" if "cpu" in table else "capacity.cpu"
            yield (
                f"{key} is {capacity.cpu:g} in server.toml, and this machine has {machine.cpu:g}"
                " CPU cores: jobs get less CPU time than their presets say when many run"
            )
        if capacity.memory > machine.memory:
            key = f"engines.{name}.memory" if "memory" in table else "capacity.memory"
            yield (
                f"{key} is {_gib(capacity.memory)} in server.toml, and this machine has"
                f" {_gib(machine.memory)}: the kernel kills jobs when they use all of it"
            )
    is_default = True
    for preset in presets:
        known = capacities.get(preset.engine)
        short = None if known is None else shortage(preset.amount, known)
        if short is not None:
            what = "the default preset" if is_default else "preset"
            yield (
                f"{what} '{preset.name}' in server.toml needs {short}: jobs with it are refused."
                " Make it smaller, or take it out"
            )
        is_default = False


def _gib(count: int) -> str:
    return f"{count / GIB:.4g} GiB"
