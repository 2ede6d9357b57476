"""What servers tell each other of their engines: what they have now, and that they are away."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from neuro.client import Client
from neuro.client.installation import EngineState, server_state
from neuro.domain.jobs import JobStatus
from neuro.domain.resources import NOTHING
from tests.postgres import PostgresServer
from tests.server.jobs import submit
from tests.server.nodes import node
from tests.server.test_nodes import status
from tests.servers.fleet import fleet_of

pytestmark = pytest.mark.postgres

SETTINGS = """
stop_grace_seconds = 1
[capacity]
cpu = 4
memory = "8G"
[engines.lab]
kind = "memory"
{of_lab}
[[presets]]
name = "lab"
cpu = 1
memory = "512M"
engine = "lab"
"""


async def lab_of(client: Client) -> EngineState:
    (lab,) = [one for one in (await server_state(client)).engines if one.name == "lab"]
    return lab


async def test_all_servers_see_the_nodes_that_an_engine_of_one_has_now(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    file = tmp_path / "nodes.json"
    file.write_bytes(msgspec.json.encode([node("first", 2, 2)]))
    with (
        postgres_server.database() as url,
        fleet_of(
            "one",
            folder=tmp_path / "fleet",
            database=url,
            settings=SETTINGS.replace("{of_lab}", f'nodes = "{file}"'),
        ) as fleet,
    ):
        fleet.add("two").start()
        one, two = fleet["one"], fleet["two"]
        async with two.connect() as client:
            lab = await lab_of(client)
            assert (lab.is_here, lab.capacity.cpu) == (False, 2)

            file.write_bytes(msgspec.json.encode([node("first", 2, 2), node("second", 6, 2)]))
            os.kill(one.pid, signal.SIGUSR1)

            async with asyncio.timeout(30):
                while (await lab_of(client)).capacity.cpu != 8:
                    await asyncio.sleep(0.01)
            assert (await lab_of(client)).free.cpu == 8


async def test_a_server_that_cannot_reach_a_shared_engine_leaves_it_to_one_that_can(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    away = [tmp_path / "away-from-one", tmp_path / "away-from-two"]
    for file in away:
        file.write_text("no way there")
    settings = [SETTINGS.replace("{of_lab}", f'away = "{file}"') for file in away]
    with (
        postgres_server.database() as url,
        fleet_of("one", folder=tmp_path / "fleet", database=url, settings=settings[0]) as fleet,
    ):
        name = '\n[server]\nname = "two"\n'
        fleet.add("two", settings=settings[1] + name).start()
        async with fleet["one"].connect() as client:
            job = await submit(client, "true", preset_name="lab")
            assert job.history.description == "The engine 'lab' is away: no way there"
            assert (await lab_of(client)).capacity == NOTHING

            away[1].unlink()

            await status(client, job, JobStatus.SUCCEEDED)
            lab = await lab_of(client)
            assert (lab.is_here, lab.notices) == (False, [])
            assert lab.capacity.cpu == 64
