"""From where to where the numbers and sizes of settings go."""

from __future__ import annotations

from typing import NamedTuple

from neuro.domain.resources import MIB


class Range(NamedTuple):
    """What a number counts, and from where to where it goes, ends included."""

    what: str
    least: float
    most: int

    def __str__(self) -> str:
        return f"{self.what} from {self.least:.15g} to {self.most}"


class Size(NamedTuple):
    """The least size in bytes; whether 0 is allowed, for no limit."""

    least: int = MIB
    or_zero: bool = False


PRESET_CPU = Range("CPU cores", 0.001, 10**6)
PRESET_GPU = Range("a count of GPUs", 0, 10_000)
CORES = Range("CPU cores", 0.01, 10**6)
