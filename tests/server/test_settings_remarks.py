"""Settings that ask for more than the machine has are allowed, and told."""

from __future__ import annotations

import pytest

from neuro.domain.resources import GIB, Amount, Preset
from neuro.server.settings import Settings, presets_for
from neuro.server.settings_remarks import remarks

MACHINE = Amount(cpu=2, memory=8 * GIB, gpu=1)
SMALL = Preset(name="small", cpu=2, memory=8 * GIB, gpu=1)


def told(*presets: Preset, capacity: Amount = MACHINE) -> list[str]:
    return list(remarks({}, presets, {"sandbox": MACHINE}, {"sandbox": capacity}))


def test_what_fits_is_not_told() -> None:
    assert told(SMALL) == []


@pytest.mark.parametrize(
    ("preset", "short"),
    [
        (Preset(name="big", cpu=8, memory=GIB), "8 CPUs (this machine has 2)"),
        (Preset(name="big", cpu=1, memory=9 * GIB), "9.0 GiB of memory (this machine has 8.0)"),
        (Preset(name="big", cpu=1, memory=GIB, gpu=2), "2 GPUs (this machine has 1)"),
    ],
)
def test_a_preset_that_never_fits_is_told_with_what_is_short(preset: Preset, short: str) -> None:
    (remark,) = told(SMALL, preset)

    assert remark.startswith(f"preset 'big' in server.toml needs {short}: jobs with it are refused")


def test_the_default_preset_is_told_as_that() -> None:
    (remark,) = told(Preset(name="big", cpu=8, memory=GIB), SMALL)

    assert remark.startswith("the default preset 'big'")


def test_a_preset_beyond_the_capacity_is_told_too() -> None:
    (remark,) = told(SMALL, capacity=Amount(cpu=1, memory=8 * GIB, gpu=1))

    assert "2 CPUs (this machine has 1)" in remark


def test_a_capacity_above_the_machine_is_told() -> None:
    cpu, memory = told(capacity=Amount(cpu=64, memory=64 * GIB, gpu=1))

    assert cpu.startswith("capacity.cpu is 64 in server.toml, and this machine has 2 CPU cores")
    assert memory.startswith("capacity.memory is 64 GiB in server.toml, and this machine has 8 GiB")


def test_a_capacity_of_an_engine_is_told_by_its_own_key() -> None:
    large = Amount(cpu=64, memory=64 * GIB)
    tables = {"sandbox": {"cpu": 64}, "second": {"cpu": 64, "memory": "64G"}}
    names = ("sandbox", "second")

    found = remarks(tables, [], dict.fromkeys(names, MACHINE), dict.fromkeys(names, large))

    assert [sentence.partition(" ")[0] for sentence in found] == [
        "engines.sandbox.cpu",
        "capacity.memory",
        "engines.second.cpu",
        "engines.second.memory",
    ]


@pytest.mark.parametrize("cpu", [0.5, 1.5, 2])
def test_presets_that_the_server_makes_fit(cpu: float) -> None:
    capacity = Amount(cpu=cpu, memory=GIB, gpu=2)

    assert told(*presets_for(Settings(), capacity, None), capacity=capacity) == []
