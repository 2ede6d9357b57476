"""Amounts of CPU, memory and GPUs, and the presets that name them."""

from __future__ import annotations

import msgspec

MIB = 1 << 20
GIB = 1 << 30


def counted(number: float, unit: str) -> str:
    """A number of a unit, as a person says it.

    >>> counted(1, "CPU"), counted(0.5, "CPU"), counted(2, "GPU")
    ('1 CPU', '0.5 CPUs', '2 GPUs')
    """
    return f"{number:g} {unit}" if number == 1 else f"{number:g} {unit}s"


class Amount(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a run occupies, or a machine offers. ``memory`` is bytes, ``cpu`` is cores."""

    cpu: float
    memory: int
    gpu: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            cpu=self.cpu + other.cpu, memory=self.memory + other.memory, gpu=self.gpu + other.gpu
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            cpu=self.cpu - other.cpu, memory=self.memory - other.memory, gpu=self.gpu - other.gpu
        )

    def fits(self, free: Amount) -> bool:
        """Whether this amount can be taken from ``free`` (a millicore of slack for float sums)."""
        return self.cpu <= free.cpu + 1e-3 and self.memory <= free.memory and self.gpu <= free.gpu

    def times_in(self, free: Amount) -> int:
        """How often this amount can be taken from ``free``."""
        return max(
            0,
            min(
                int((free.cpu + 1e-3) // self.cpu),
                free.memory // self.memory,
                free.gpu // self.gpu if self.gpu else 1 << 30,
            ),
        )


NOTHING = Amount(cpu=0.0, memory=0)


class Preset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named amount of resources and the engine that it runs on. ``memory`` is bytes.

    ``disk`` is bytes of private files that a job may have, 0 for no limit. ``credits_per_hour`` is
    a decimal string, because clients feed it to ``Decimal``.
    """

    name: str
    cpu: float
    memory: int
    gpu: int = 0
    gpu_model: str | None = None
    credits_per_hour: str = "0"
    scheduler_enabled: bool = False
    preemptible_node: bool = False
    engine: str = "sandbox"
    disk: int = 0

    @property
    def amount(self) -> Amount:
        return Amount(cpu=self.cpu, memory=self.memory, gpu=self.gpu)
