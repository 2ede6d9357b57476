"""Jobs through the real API, on both databases, with the real sandbox engine."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import aiohttp
import msgspec
import pytest

from neuro.client import Client
from neuro.domain.errors import (
    AlreadyExists,
    InvalidInput,
    NeverFits,
    NoSuchJob,
    NotFound,
    NotPermitted,
)
from neuro.domain.jobs import JobFilter, JobRequest, JobStatus
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import SETTINGS, ServerProcess, running_server


async def test_a_job_runs_and_its_output_and_exit_code_are_kept(client: Client) -> None:
    job = await submit(client, "sh -c 'echo Hello, World!; exit 7'")

    assert await output_of(client, job) == b"Hello, World!\n"
    job = await client.jobs.get(job.id)
    assert (job.status, job.history.exit_code) == (JobStatus.FAILED, 7)
    assert job.history.reason == "Error"
    assert job.history.started_at is not None
    assert job.history.finished_at is not None


async def test_the_life_of_a_job_is_told_step_by_step(client: Client) -> None:
    job = await finished(client, await submit(client, "true"))

    steps = [(step.status.value, step.reason) for step in job.statuses]
    assert steps == [
        ("pending", "Creating"),
        ("pending", "Scheduling"),
        ("running", None),
        ("succeeded", "Completed"),
    ]
    times = [step.transition_time for step in job.statuses]
    assert times == sorted(times)


async def test_the_platform_tells_a_job_who_it_is(client: Client) -> None:
    job = await submit(client, "env", name="who-am-i", env={"MINE": "kept"})

    lines = (await output_of(client, job)).decode().splitlines()

    assert f"NEURO_JOB_ID={job.id}" in lines
    assert "NEURO_JOB_NAME=who-am-i" in lines
    assert f"NEURO_JOB_OWNER={client.user}" in lines
    assert "NEURO_JOB_PRESET=cpu-small" in lines
    assert "MINE=kept" in lines


async def test_a_name_is_free_again_once_its_job_is_over(client: Client) -> None:
    first = await running(client, "sleep 1000", name="only-one")

    with pytest.raises(AlreadyExists, match=first.id):
        await submit(client, "true", name="only-one")
    await client.jobs.kill(first.id)
    await finished(client, first)
    second = await submit(client, "true", name="only-one")

    assert (await client.jobs.find("only-one")).id == second.id
    await finished(client, second)


async def test_two_users_may_use_the_same_name(client: Client, alice: Client) -> None:
    mine = await running(client, "sleep 1000", name="shared-name")

    hers = await submit(alice, "true", name="shared-name")

    assert hers.owner == "alice"
    await finished(alice, hers)
    await client.jobs.kill(mine.id)


async def test_a_killed_job_is_cancelled_at_the_users_request(client: Client) -> None:
    job = await running(client, "sleep 1000")

    await client.jobs.kill(job.id)
    job = await finished(client, job)
    await client.jobs.kill(job.id)

    assert (job.status, job.history.reason) == (JobStatus.CANCELLED, "UserRequested")


async def test_a_waiting_job_says_what_it_waits_for_and_can_be_killed(client: Client) -> None:
    first = await running(client, "sleep 1000", preset_name="cpu-large")
    waiting = await submit(client, "true", preset_name="cpu-large")
    behind = await submit(client, "true", preset_name="cpu-large")

    waiting = await client.jobs.get(waiting.id)
    behind = await client.jobs.get(behind.id)

    assert waiting.status is JobStatus.PENDING
    assert "Waits for 60 CPU" in (waiting.history.description or "")
    assert "; 1 ahead" in (behind.history.description or "")
    for job in (waiting, behind):
        await client.jobs.kill(job.id)
        assert (await client.jobs.get(job.id)).status is JobStatus.CANCELLED
    await client.jobs.kill(first.id)
    await finished(client, first)


async def test_a_waiting_job_starts_when_its_turn_comes(client: Client) -> None:
    first = await running(client, "sleep 1000", preset_name="cpu-large")
    second = await submit(client, "echo my turn", preset_name="cpu-large")

    await client.jobs.kill(first.id)

    assert await output_of(client, second) == b"my turn\n"


async def test_a_job_that_is_not_scheduled_in_time_fails(client: Client) -> None:
    first = await running(client, "sleep 1000", preset_name="cpu-large")

    late = await submit(client, "true", preset_name="cpu-large", schedule_timeout=0.2)
    late = await finished(client, late)

    assert (late.status, late.history.reason) == (JobStatus.FAILED, "ClusterScaleUpFailed")
    assert (late.history.description or "").startswith(
        "It was not scheduled in time: it waited for 60 CPUs ("
    )
    await client.jobs.kill(first.id)
    await finished(client, first)


async def test_what_can_never_run_is_refused_with_the_numbers(client: Client) -> None:
    with pytest.raises(NeverFits, match="1000 CPU"):
        await submit(client, "true", preset_name="cpu-huge")


async def test_a_failing_job_restarts_and_its_log_goes_on(client: Client) -> None:
    command = "sh -c 'cat /mark/n; echo run >> /mark/n; test $(wc -l < /mark/n) -gt 2'"
    volume = {
        "src_storage_uri": f"storage://default/{client.user}/restarts-{id(client)}",
        "dst_path": "/mark",
        "read_only": False,
    }

    job = await submit(client, command, restart_policy="on-failure", volumes=[volume])
    output = await output_of(client, job)
    job = await client.jobs.get(job.id)

    assert job.status is JobStatus.SUCCEEDED
    assert job.history.restarts == 2
    assert output.endswith(b"run\nrun\nrun\n")


async def test_a_command_that_is_not_there_has_the_shells_exit_code(client: Client) -> None:
    job = await finished(client, await submit(client, "no-such-command"))

    assert (job.status, job.history.exit_code) == (JobStatus.FAILED, 127)


async def test_a_volume_that_is_not_there_is_refused_before_anything_runs(client: Client) -> None:
    volume = {"src_storage_uri": f"storage://default/{client.user}/absent", "dst_path": "/x"}

    with pytest.raises(InvalidInput, match="does not exist"):
        await submit(client, "true", volumes=[volume])


async def test_nobody_mounts_or_sees_what_is_anothers(client: Client, alice: Client) -> None:
    job = await finished(client, await submit(client, "true", name="private-job"))
    volume = {"src_storage_uri": f"storage://default/{client.user}/x", "dst_path": "/x"}

    with pytest.raises(NotFound):
        await submit(alice, "true", volumes=[volume])
    with pytest.raises(NoSuchJob):
        await alice.jobs.get(job.id)
    with pytest.raises(NoSuchJob):
        await alice.jobs.kill(job.id)
    with pytest.raises(NotFound):
        await output_of(alice, job)
    assert job.id not in [seen.id async for seen in alice.jobs.list()]


async def test_only_admins_run_privileged_jobs(client: Client, alice: Client) -> None:
    with pytest.raises(NotFound, match=r"^Only administrators may run privileged jobs\.$"):
        await submit(alice, "true", privileged=True)

    job = await finished(client, await submit(client, "true", privileged=True))

    assert job.history.exit_code == 0


async def test_a_link_in_place_of_a_volumes_folder_is_not_followed(client: Client) -> None:
    home = f"storage://default/{client.user}"
    volume = {"src_storage_uri": f"{home}/trap", "dst_path": "/volume", "read_only": False}
    link = f"sh -c 'ln -s /etc /volume/escape-{id(client)}'"
    await finished(client, await submit(client, link, volumes=[volume]))

    through = {"src_storage_uri": f"{home}/trap/escape-{id(client)}", "dst_path": "/stolen"}
    with pytest.raises(InvalidInput):
        await submit(client, "ls /stolen", volumes=[through])


async def test_an_admin_sees_and_ends_anybodys_jobs(client: Client, alice: Client) -> None:
    job = await running(alice, "sleep 1000")

    assert job.id in [seen.id async for seen in client.jobs.list()]
    await client.jobs.kill(job.id)

    assert (await finished(alice, job)).status is JobStatus.CANCELLED


async def test_lists_filter_by_everything_that_the_wire_names(client: Client) -> None:
    one = await submit(client, "true", name="filter-one", tags=["kind:a", "both"])
    two = await submit(client, "false", tags=["kind:b", "both"])
    one, two = await finished(client, one), await finished(client, two)

    async def ids(**query: object) -> list[str]:
        asked = msgspec.convert({"tag": ["both"], **query}, JobFilter)
        return [job.id async for job in client.jobs.list(asked)]

    assert await ids() == [one.id, two.id]
    assert await ids(reverse=True) == [two.id, one.id]
    assert await ids(limit=1) == [one.id]
    assert await ids(status=["failed"]) == [two.id]
    assert await ids(status=["failed", "succeeded"]) == [one.id, two.id]
    assert await ids(tag=["both", "kind:a"]) == [one.id]
    assert await ids(name="filter-one") == [one.id]
    assert await ids(owner=["nobody"]) == []
    assert await ids(since=two.history.created_at) == [two.id]
    assert await ids(until=one.history.created_at) == [one.id]
    assert await ids(after=one.id) == [two.id]
    with pytest.raises(InvalidInput):
        await ids(name="Bad Name!")


async def test_the_life_span_ends_a_job_and_can_be_extended(client: Client) -> None:
    job = await running(client, "sleep 1000", max_run_time_minutes=1)

    await client.jobs.extend_life_span(job.id, 5)

    job = await client.jobs.get(job.id)
    assert job.max_run_time_minutes == 6
    await client.jobs.kill(job.id)
    await finished(client, job)


async def test_exec_runs_inside_with_its_own_streams_and_exit_code(client: Client) -> None:
    job = await running(client, "sleep 1000")

    async with client.jobs.exec(job.id, "sh -c 'cat; echo oops >&2; exit 5'") as session:
        await session.write(b"")
        channels: dict[int, bytes] = {}
        async with client.jobs.exec(job.id, "sh -c 'echo out; echo err >&2; exit 5'") as other:
            while (item := await other.read()) is not None:
                channels[item[0]] = channels.get(item[0], b"") + item[1]

    assert channels == {1: b"out\n", 2: b"err\n"}
    assert other.exit_code == 5
    await client.jobs.kill(job.id)
    await finished(client, job)


async def test_exec_into_what_does_not_run_is_refused(client: Client) -> None:
    job = await finished(client, await submit(client, "true"))

    with pytest.raises(NotFound, match="not running"):
        async with client.jobs.exec(job.id, "true"):
            pass


async def test_attaching_late_is_accepted_but_a_probe_is_not(client: Client) -> None:
    job = await finished(client, await submit(client, "true"))

    async with client.jobs.attach(job.id):
        pass
    with pytest.raises(NotFound):
        async with client.jobs.attach(job.id, stdin=True, output=False):
            pass


async def test_attach_ends_with_the_exit_code(client: Client) -> None:
    job = await running(client, "sleep 0.3; echo more; exit 3")

    async with client.jobs.attach(job.id) as session:
        while await session.read() is not None:
            pass

    assert session.exit_code == 3
    assert (await client.jobs.get(job.id)).history.exit_code == 3


async def test_telemetry_comes_while_a_job_runs(client: Client) -> None:
    job = await running(client, "sleep 1000")

    async for sample in client.jobs.top(job.id):
        assert sample.memory_bytes > 0
        break

    await client.jobs.kill(job.id)
    await finished(client, job)


async def test_a_port_inside_a_job_is_reached(client: Client) -> None:
    server = (
        'import socket; s = socket.create_server(("127.0.0.1", 8642)); print("up", flush=True);'
        " c = s.accept()[0]; c.sendall(c.recv(100).upper()); c.close()"
    )
    job = await submit(client, f"python3 -c '{server}'")
    async for _ in client.jobs.logs(job.id):
        break

    async with client.jobs.port_forward(job.id, 8642) as connection:
        await connection.send(b"hello")
        assert await connection.receive() == b"HELLO"
        assert await connection.receive() is None
        await connection.send_eof()
        await connection.wait_closed()

    await finished(client, job)


async def test_data_behind_its_end_is_told_as_a_mistake_of_the_client(
    server: ServerProcess, client: Client
) -> None:
    script = (
        'import socket, time; s = socket.create_server(("127.0.0.1", 8642));'
        ' print("up", flush=True); c = s.accept()[0]; time.sleep(1000)'
    )
    job = await submit(client, f"python3 -c '{script}'")
    async for _ in client.jobs.logs(job.id):
        break

    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(
            f"{server.url}/monitoring/jobs/{job.id}/port_forward/8642",
            protocols=("half-close.neu.ro",),
        ) as socket,
    ):
        await socket.send_bytes(b"")
        await socket.send_bytes(b"")
        await socket.send_bytes(b"late")
        async with asyncio.timeout(20):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.PROTOCOL_ERROR
    assert "RuntimeError" not in server.log()

    await client.jobs.kill(job.id)


async def test_the_first_use_of_an_image_is_remarked_on_once_where_there_are_none(
    tmp_path: Path,
) -> None:
    request = JobRequest(image="pytorch/pytorch:latest", command="true")
    settings = f"{SETTINGS}\n[engines.sandbox]\nimages = false\n"

    with running_server(tmp_path / "data", settings=settings) as server:
        async with Client.connect(server.url, server.token) as client:
            first = await client.jobs.submit(request)
            second = await client.jobs.submit(request)

            assert "recorded, not pulled" in first.notices[0]
            assert second.notices == ()
            await finished(client, first.job)
            await finished(client, second.job)


async def test_a_job_may_be_given_the_owners_login(client: Client) -> None:
    script = (
        "import base64, json, os, urllib.request as r;"
        ' login = json.loads(base64.b64decode(os.environ["NEURO_PASSED_CONFIG"]));'
        ' call = r.Request(login["url"] + "/config",'
        ' headers={"Authorization": "Bearer " + login["token"]});'
        ' print(json.load(r.urlopen(call))["user_name"])'
    )

    job = await submit(client, f"python3 -c '{script}'", pass_config=True)

    assert (await output_of(client, job)).decode().strip() == client.user


async def test_users_are_the_admins_business(alice: Client) -> None:
    with pytest.raises((NotFound, NotPermitted)):
        await alice.users.add("mallory")
    with pytest.raises((NotFound, NotPermitted)):
        await alice.users.all()


@pytest.mark.parametrize("code", [126, 127])
async def test_a_programs_own_code_restarts_it_whatever_it_prints(
    client: Client, code: int
) -> None:
    volume = {
        "src_storage_uri": f"storage://default/{client.user}/own-{code}-{id(client)}",
        "dst_path": "/data",
        "read_only": False,
    }
    script = f"test -e /data/again && exit 0; touch /data/again; echo 'env: nosuch'; exit {code}"
    job = await submit(
        client, shlex.join(["sh", "-c", script]), restart_policy="on-failure", volumes=[volume]
    )

    job = await finished(client, job)

    assert (job.status, job.history.restarts) == (JobStatus.SUCCEEDED, 1)


async def test_a_list_of_another_cluster_is_refused_and_not_empty(client: Client) -> None:
    with pytest.raises(InvalidInput, match="'elsewhere' is unknown; this server's cluster is"):
        [job async for job in client.jobs.list(JobFilter(cluster_name="elsewhere"))]
