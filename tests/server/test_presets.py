"""Presets that administrators change while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client, JobRequest
from neuro.domain.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    NotPermitted,
)
from neuro.domain.resources import GIB, MIB
from neuro.domain.server_config import PresetMessage, PresetRequest
from tests.postgres import PostgresServer
from tests.server.jobs import finished, submit
from tests.server_process import ServerProcess
from tests.servers.fleet import fleet_of

PATH = "/clusters/default/orchestrator/resource_presets"


async def offered(client: Client) -> dict[str, PresetMessage]:
    """The presets that everybody is told."""
    [cluster] = (await client.config()).clusters
    return {one.name: one for one in cluster.resource_presets}


def request(name: str = "medium", **more: object) -> PresetRequest:
    return PresetRequest(**{"name": name, "cpu": 0.5, "memory": 64 * MIB, **more})  # type: ignore[arg-type]


async def test_presets_are_added_changed_removed_and_stay(
    own_server: ServerProcess,
) -> None:
    async with Client.connect(own_server.url, own_server.token) as client:
        before = await offered(client)

        await client.presets.add(request(disk=GIB))
        assert [*await offered(client)] == [*before, "medium"]
        job = await submit(client, "true", preset_name="medium")
        assert job.container.resources.memory == 64 * MIB
        await client.presets.update("medium", PresetRequest(memory=128 * MIB))
        await client.presets.remove("cpu-huge")

    own_server.stop()
    own_server.start()
    async with Client.connect(own_server.url, own_server.token) as client:
        now = await offered(client)
        assert [*now] == ["cpu-small", "cpu-large", "medium"]
        medium = now["medium"]
        assert (medium.memory, medium.cpu, medium.disk) == (128 * MIB, 0.5, GIB)
        assert medium.engine == before["cpu-small"].engine
        assert now["cpu-small"] == before["cpu-small"]
        with pytest.raises(InvalidInput, match="Preset 'cpu-huge' is unknown"):
            await client.jobs.submit(JobRequest(image="x", command="true", preset_name="cpu-huge"))


async def test_what_cannot_be_changes_nothing(client: Client, alice: Client) -> None:
    before = await client.presets.all()
    for wrong, said in (
        (request("a/b"), "cannot be a preset's name"),
        (request("x" * 65), "cannot be a preset's name"),
        (request(cpu=0), "cpu is 0"),
        (request(cpu=-1), "cpu is -1"),
        (request(memory=1), "memory is 1"),
        (request(gpu=-1), "gpu is -1"),
        (request(disk=5), "disk is 5"),
        (request(engine="absent"), "there is no engine 'absent'"),
        (request(credits_per_hour="dear"), "credits_per_hour must be a number"),
        (request(scheduler_enabled=True), "take turns"),
        (request(tpu_type="v2"), "no TPUs"),
        (PresetRequest(name="x"), "needs a name, cpu and memory"),
    ):
        with pytest.raises(InvalidInput, match=said):
            await client.presets.add(wrong)
    with pytest.raises(AlreadyExists, match="update-resource-preset"):
        await client.presets.add(request("cpu-small"))
    with pytest.raises(NotFound, match="known are: cpu-small"):
        await client.presets.remove("absent")
    with pytest.raises(NotFound, match="known are: cpu-small"):
        await client.presets.update("absent", PresetRequest(cpu=1))
    for call in (
        alice.presets.all(),
        alice.presets.add(request()),
        alice.presets.update("cpu-small", PresetRequest(cpu=1)),
        alice.presets.remove("cpu-small"),
    ):
        with pytest.raises(NotPermitted):
            await call
    assert await client.presets.all() == before


async def test_a_whole_list_is_put_in_place_as_the_oldest_clients_do(
    own_server: ServerProcess,
) -> None:
    async with Client.connect(own_server.url, own_server.token) as client:
        await client.presets.add(request(disk=GIB))
        listed = [
            {"name": "medium", "cpu": 2, "memory_mb": 100, "is_preemptible": False},
            {"name": "new", "cpu": 0.1, "memory_mb": 1024, "gpu": None},
        ]
        headers = {"Authorization": f"Bearer {own_server.token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.put(own_server.url + PATH, json=listed) as answer,
        ):
            assert answer.status == 200
        now = await offered(client)
        assert {name: (one.cpu, one.memory, one.disk == GIB) for name, one in now.items()} == {
            "medium": (2, 100 * MIB, True),
            "new": (0.1, GIB, False),
        }
        await client.presets.remove("new")
        with pytest.raises(InvalidInput, match="last preset"):
            await client.presets.remove("medium")


@pytest.mark.postgres
async def test_another_server_has_them_too(tmp_path: Path, postgres_server: PostgresServer) -> None:
    with (
        postgres_server.database() as url,
        fleet_of("one", "two", folder=tmp_path, database=url) as fleet,
    ):
        async with fleet["one"].connect() as one, fleet["two"].connect() as two:
            await asyncio.gather(
                one.presets.add(request(engine="shared")),
                two.presets.add(request("other", engine="shared")),
            )

            # The feed wakes them within a moment.
            async with asyncio.timeout(30):
                for client in (one, two):
                    while not {"medium", "other", "shared"} <= {*await offered(client)}:
                        await asyncio.sleep(0.05)
            job = await submit(two, "true", preset_name="medium")
            assert (await finished(one, job)).history.exit_code == 0
