"""The node that the sandbox engine offers: this machine, with the GPUs that it has now."""

from __future__ import annotations

import asyncio
from pathlib import Path

from neuro.engines.base import NodesChanged
from neuro.engines.sandbox import SandboxEngine
from neuro.engines.sandbox.settings import SandboxSettings
from tests.engines.harness import PATIENCE


async def test_gpus_are_those_that_there_are_and_it_is_told_when_one_goes_away(
    folder: Path, tmp_path: Path
) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    for name in ("nvidia0", "nvidia2", "nvidiactl"):
        (devices / name).touch()
    engine = SandboxEngine(folder, SandboxSettings(device_folder=str(devices)))
    await engine.open()
    try:
        (before,) = await engine.nodes()
        (devices / "nvidia0").unlink()
        async with asyncio.timeout(PATIENCE):
            event = await anext(engine.events())
        (after,) = await engine.nodes()
    finally:
        await engine.close()

    assert (before.gpus, after.gpus) == (("0", "2"), ("2",))
    assert event == NodesChanged()
    assert before.name == after.name
