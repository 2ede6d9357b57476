"""Several engines in one server, and what becomes of jobs whose engine is taken away."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from neuro.client import Client
from neuro.client.installation import server_state
from neuro.domain.errors import NotFound, NotSupported
from neuro.domain.jobs import JobStatus
from neuro.engines.registry import KINDS, Kind, kind_of
from neuro.server.jobs.abilities import attaching, connecting, executing, measuring
from tests.engines.memory import MemoryEngine
from tests.server.jobs import finished, output_of, running, submit
from tests.server.test_tables import record
from tests.server_process import ServerProcess, running_server

ONE = """
stop_grace_seconds = 1
[capacity]
cpu = 4
memory = "2G"
[[presets]]
name = "here"
cpu = 1
memory = "256M"
"""
TWO = (
    ONE
    + """
[engines.second]
kind = "sandbox"
cpu = 2
memory = "1G"
[[presets]]
name = "there"
cpu = 2
memory = "256M"
engine = "second"
"""
)


async def test_each_engine_runs_the_jobs_of_its_presets(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", settings=TWO) as server:
        async with Client.connect(server.url, server.token) as client:
            here = await running(client, "sleep 1000", preset_name="here")
            there = await running(client, "sleep 1000", preset_name="there")
            # The second engine has room for one of these, whatever the first one has.
            waits = await submit(client, "true", preset_name="there")
            assert (await client.jobs.get(waits.id)).status is JobStatus.PENDING
            assert await client.jobs.capacity() == {"here": 3, "there": 0}

            server.kill()
            server.start()

            assert (await client.jobs.get(here.id)).status is JobStatus.RUNNING
            await client.jobs.kill(there.id)
            assert (await finished(client, there)).status is JobStatus.CANCELLED
            assert (await finished(client, waits)).status is JobStatus.SUCCEEDED
            await client.jobs.kill(here.id)
            assert (await finished(client, here)).status is JobStatus.CANCELLED


async def answer_to_a_reload(server: ServerProcess, settings: str) -> str | None:
    (server.data_dir / "server.toml").write_text(settings)
    told = server.data_dir / "run" / "reload.json"
    told.unlink(missing_ok=True)
    os.kill(server.pid, signal.SIGHUP)
    async with asyncio.timeout(20):
        while not told.exists():
            await asyncio.sleep(0.01)
    error = json.loads(told.read_text())["error"]
    return None if error is None else str(error)


async def test_an_engine_with_jobs_cannot_be_taken_away(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", settings=TWO) as server:
        async with Client.connect(server.url, server.token) as client:
            job = await running(client, "sleep 1000", preset_name="there")

            refused = await answer_to_a_reload(server, ONE)

            assert refused is not None
            assert "The engine 'second' is not in server.toml any more, and 1 job on it" in refused
            assert (await client.jobs.get(job.id)).status is JobStatus.RUNNING
            refused = await answer_to_a_reload(server, TWO.replace('"second"', '"gone"'))
            assert refused is not None
            assert "preset 'there': engine is 'gone', which this server does not have" in refused
            missing = f'[storage]\nfolder = "{tmp_path}/away/storage"\n'
            refused = await answer_to_a_reload(server, TWO + missing)
            assert refused is not None
            assert "/away/storage, is not there, and neither is" in refused
            in_a_file = f'[storage]\nfolder = "{server.data_dir}/server.toml/storage"\n'
            refused = await answer_to_a_reload(server, TWO + in_a_file)
            assert refused is not None
            assert "cannot be used: Not a directory" in refused
            (server.data_dir / "server.toml").write_text(ONE)
            server.stop()
            with pytest.raises(RuntimeError, match=r"put \[engines.second\] back"):
                server.start()

            (server.data_dir / "server.toml").write_text(TWO)
            server.start()
            await client.jobs.kill(job.id)
            await finished(client, job)


async def test_what_ran_on_an_engine_that_is_gone_is_still_shown(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", settings=TWO) as server:
        async with Client.connect(server.url, server.token) as client:
            job = await finished(client, await submit(client, "true", preset_name="there"))
            server.stop()
            (server.data_dir / "server.toml").write_text(ONE)
            server.start()

            assert (await client.jobs.get(job.id)).status is JobStatus.SUCCEEDED
            with pytest.raises(NotFound, match="ran on the engine 'second'"):
                await output_of(client, job)


async def test_an_engine_keeps_its_name_and_its_logs_when_the_server_gets_another(
    tmp_path: Path,
) -> None:
    with running_server(tmp_path / "data", settings=ONE) as server:
        async with Client.connect(server.url, server.token) as client:
            over = await finished(client, await submit(client, "echo before"))
            goes_on = await running(client, "sleep 1000")
        for name in ("lab", "attic"):
            server.stop()
            settings = TWO if name == "attic" else ONE
            (server.data_dir / "server.toml").write_text(f'{settings}[server]\nname = "{name}"\n')
            server.start()

        async with Client.connect(server.url, server.token) as client:
            assert await output_of(client, over) == b"before\n"
            assert await output_of(client, await submit(client, "echo after")) == b"after\n"
            # One that begins now has the name that the server has now.
            engines = [engine.name for engine in (await server_state(client)).engines]
            assert engines == ["sandbox", "second-attic"]
            assert (await client.jobs.get(goes_on.id)).status is JobStatus.RUNNING
            await client.jobs.kill(goes_on.id)
            assert (await finished(client, goes_on)).status is JobStatus.CANCELLED


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_found_by_its_name(name: str) -> None:
    assert isinstance(kind_of(name), Kind)


@pytest.mark.parametrize("ability", [attaching, executing, connecting, measuring])
def test_what_an_engine_lacks_is_told_with_its_name(ability: object) -> None:
    job = record()

    with pytest.raises(NotSupported, match=f"Job {job.id} is on the engine 'sandbox' and cannot"):
        ability(MemoryEngine(), job)  # type: ignore[operator]
