"""What ``server.toml`` asks of a machine that has less: allowed, and surely not meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.sizes import parse_bytes
from neuro.server.settings import CapacitySetting


def remarks(
    asked: CapacitySetting,
    presets: Iterable[Preset],
    machine: Amount,
    capacities: Mapping[str, Amount],
) -> Iterator[str]:
    """Sentences for the administrator, without a full stop.

    ``machine`` is all that there is, and ``capacities`` is what jobs may take of each engine. The
    first of the ``presets`` is the default.
    """
    if asked.cpu is not None and asked.cpu > machine.cpu + 1e-3:
        yield (
            f"capacity.cpu is {asked.cpu:g} in server.toml, and this machine has {machine.cpu:g}"
            " CPU cores: jobs get less CPU time than their presets say when many run"
        )
    if asked.memory is not None and (memory := parse_bytes(asked.memory)) > machine.memory:
        yield (
            f"capacity.memory is {_gib(memory)} in server.toml, and this machine has"
            f" {_gib(machine.memory)}: the kernel kills jobs when they use all of it"
        )
    is_default = True
    for preset in presets:
        short = " and ".join(_shortage(preset.amount, capacities[preset.engine]))
        if short:
            what = "the default preset" if is_default else "preset"
            yield (
                f"{what} '{preset.name}' in server.toml needs {short}: jobs with it are refused."
                " Make it smaller, or take it out"
            )
        is_default = False


def _shortage(needed: Amount, capacity: Amount) -> Iterator[str]:
    if needed.cpu > capacity.cpu + 1e-3:
        yield f"{needed.cpu:g} CPU (there are {capacity.cpu:g})"
    if needed.memory > capacity.memory:
        yield f"{_gib(needed.memory)} of memory (there are {_gib(capacity.memory)})"
    if needed.gpu > capacity.gpu:
        yield f"{needed.gpu} GPU (there are {capacity.gpu})"


def _gib(count: int) -> str:
    return f"{count / GIB:.4g} GiB"
