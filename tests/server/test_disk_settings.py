"""How much private disk the jobs of a preset have."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, MIB, Amount
from neuro.server.settings import Settings, disk_for, load_settings, presets_for

MACHINE = Amount(cpu=8, memory=64 * GIB)
PRESET = '[[presets]]\nname = "small"\ncpu = 1\nmemory = "1G"\n'


def settings(folder: Path, text: str) -> Settings:
    (folder / "server.toml").write_text(text)
    return load_settings(folder / "server.toml")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("", 7 * GIB), ('disk = "50G"\n', 50 * GIB), ("disk = 0\n", 0), ("disk = 1048576\n", MIB)],
)
def test_a_preset_says_how_much_or_has_the_default(
    tmp_path: Path, line: str, expected: int
) -> None:
    (preset,) = presets_for(settings(tmp_path, PRESET + line), MACHINE, None, 7 * GIB)

    assert preset.disk == expected


def test_presets_that_the_server_makes_have_the_default() -> None:
    assert {one.disk for one in presets_for(Settings(), MACHINE, None, 7 * GIB)} == {7 * GIB}


@pytest.mark.parametrize("text", ["12", '"1K"', '"much"', "-1"])
def test_a_size_that_no_job_can_live_in_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput):
        settings(tmp_path, f"{PRESET}disk = {text}\n")


def test_the_default_is_a_fifth_of_the_disk_and_ten_gibibytes_at_least() -> None:
    assert disk_for(1000 * GIB) == 200 * GIB
    assert disk_for(30 * GIB) == 10 * GIB
