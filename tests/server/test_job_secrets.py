"""Secrets in jobs of a real server: what the job gets, and that nobody else does."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, select

from neuro.client import Client
from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.jobs import JobStatus
from neuro.domain.permissions import Action
from tests.server.jobs import finished, output_of, running, submit
from tests.server_process import ServerProcess

VALUE = "s3cr3t-" + os.urandom(8).hex()
TOKEN = "secret://default/{}/token"


@pytest.fixture
async def owner(own_server: ServerProcess) -> AsyncIterator[Client]:
    """The owner of a server of the test's own, with one secret."""
    async with Client.connect(own_server.url, own_server.token) as client:
        client.user = own_server.user
        await client.secrets.put("token", VALUE.encode())
        yield client


def uses(client: Client, **more: object) -> dict[str, object]:
    """A job's secret as a variable and as a file."""
    uri = TOKEN.format(client.user)
    file = {"src_secret_uri": uri, "dst_path": "/keys/token"}
    return {"secret_env": {"TOKEN": uri}, "secret_volumes": [file], **more}


async def test_a_job_gets_it_as_a_variable_and_as_a_file(owner: Client) -> None:
    script = 'echo "$TOKEN"; cat /keys/token; echo; stat -c %a,%u,%F /keys/token; df -T /keys/token'
    script += " | tail -1 | cut -d' ' -f1; echo x > /keys/token || echo read-only"
    job = await submit(owner, shlex.join(["sh", "-c", script]), **uses(owner))

    said = (await output_of(owner, job)).decode().splitlines()

    assert said[:4] == [VALUE, VALUE, "400,0,regular file", "tmpfs"]
    assert said[-1] == "read-only"
    shown = (await owner.jobs.get(job.id)).container
    assert shown.secret_env == {"TOKEN": TOKEN.format(owner.user)}
    assert shown.secret_volumes[0].dst_path == "/keys/token"


async def test_it_is_nowhere_else(own_server: ServerProcess, owner: Client) -> None:
    """In no file, no row, no log, no answer, and of no process but the job's own."""
    job = await running(owner, "exec sleep 1000", **uses(owner))
    failed = await submit(owner, "no-such-command", **uses(owner))
    await finished(owner, failed)
    its = {pid for pid, part in processes("environ") if VALUE.encode() in part}

    names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in its}
    assert names == {"sleep"}
    assert not [pid for pid, part in processes("cmdline") if VALUE.encode() in part]
    own_server.kill()
    assert files_with(own_server.data_dir, VALUE.encode()) == []
    assert VALUE not in rows_of(own_server.database_url)
    own_server.start()
    async with Client.connect(own_server.url, own_server.token) as client:
        answer = await client.jobs.get(job.id)
        listed = await client.secrets.all()
    assert answer.status is JobStatus.RUNNING
    assert VALUE not in f"{answer} {listed}"
    assert [it.used_by for it in listed] == [[job.id]]


def processes(part: str) -> Iterator[tuple[int, bytes]]:
    """(pid, content) of every process's file in /proc but this one's."""
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                yield int(name), Path(f"/proc/{name}/{part}").read_bytes()


def files_with(folder: Path, content: bytes) -> list[str]:
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                with suppress(OSError):
                    if content in path.read_bytes():
                        found.append(str(path))
    return found


def rows_of(url: str) -> str:
    """All that a database has, as text."""
    engine = create_engine(url)
    try:
        metadata = MetaData()
        metadata.reflect(engine)
        assert "secrets" in metadata.tables
        with engine.connect() as connection:
            return "".join(
                repr([*row])
                for table in metadata.sorted_tables
                for row in connection.execute(select(table))
            )
    finally:
        engine.dispose()


async def test_a_run_needs_it_at_its_start_and_gets_what_it_is_then(owner: Client) -> None:
    script = 'sh -c \'[ "$TOKEN" = new ]; echo "$?"; exit 1\''
    first = await submit(owner, script, **uses(owner), restart_policy="on-failure")
    async for _ in owner.jobs.logs(first.id):
        break
    await owner.secrets.put("token", b"new")
    seen = b""
    async for piece in owner.jobs.logs(first.id):
        seen += piece
        if b"0\n" in seen:
            break

    await owner.secrets.remove("token")

    over = await finished(owner, first)
    assert over.status is JobStatus.FAILED
    assert f"'{TOKEN.format(owner.user)}' does not exist any more" in (
        over.history.description or ""
    )


async def test_what_is_not_there_or_not_yours_is_told_when_a_job_is_submitted(
    own_server: ServerProcess, owner: Client
) -> None:
    with pytest.raises(NotFound, match=r"Did you mean 'secret://default/.*/token'"):
        await submit(owner, "true", secret_env={"A": TOKEN.format(owner.user) + "s"})
    await owner.users.add("alice")
    token = (await owner.users.create_token("alice")).token
    async with Client.connect(own_server.url, token) as alice:
        with pytest.raises(NotFound, match="does not exist, or you may not use it"):
            await submit(alice, "true", **uses(owner))
        uri = TOKEN.format(owner.user)
        await owner.permissions.share(uri, "alice", Action.READ)
        job = await submit(alice, "sh -c 'cat /keys/token'", **uses(owner))
        assert await output_of(alice, job) == VALUE.encode()
        # She may not see which of the owner's jobs use it, and sees her own.
        await running(owner, "exec sleep 1000", **uses(owner))
        hers = await running(alice, "exec sleep 1000", **uses(owner))
        assert [it.used_by for it in await alice.secrets.all()] == [[hers.id]]
        assert len((await owner.secrets.all())[0].used_by) == 2


async def test_bytes_are_a_file_and_no_variable(owner: Client) -> None:
    await owner.secrets.put("bytes", b"\xff\x00\n")
    uri = f"secret://default/{owner.user}/bytes"
    file = {"src_secret_uri": uri, "dst_path": "/etc/its"}
    job = await submit(owner, "od -An -tx1 /etc/its", secret_volumes=[file])
    assert (await output_of(owner, job)).split() == [b"ff", b"00", b"0a"]

    refused = await finished(owner, await submit(owner, "true", secret_env={"A": uri}))

    assert refused.status is JobStatus.FAILED
    assert "is not text, so the variable A cannot have it" in (refused.history.description or "")


async def test_a_build_gets_secrets_as_files_alone(owner: Client) -> None:
    image = {"image": "neuro/builder", "command": "--no-push"}
    uri = TOKEN.format(owner.user)

    with pytest.raises(InvalidInput, match="mount one below /kaniko/secrets"):
        await submit(owner, secret_env={"A": uri}, **image)
    inside = {"src_secret_uri": uri, "dst_path": "/usr/lib/python3"}
    with pytest.raises(InvalidInput, match="where programs of the machine are"):
        await submit(owner, secret_volumes=[inside], **image)


async def test_a_key_that_is_gone_keeps_jobs_waiting_until_it_is_back(
    own_server: ServerProcess, owner: Client
) -> None:
    key = own_server.data_dir / "keys" / "secrets.key"
    kept = key.rename(key.with_suffix(".kept"))
    job = await submit(owner, "sh -c 'cat /keys/token'", **uses(owner))
    async for _ in changes_of(owner, job.id):
        now = await owner.jobs.get(job.id)
        if "secrets.key is missing" in (now.history.description or ""):
            break

    kept.rename(key)

    assert await output_of(owner, job) == VALUE.encode()


async def changes_of(client: Client, job_id: str) -> AsyncIterator[None]:
    """Once for each change of a job, and at first."""
    yield None
    async for event in client.jobs.events(ids=[job_id]):
        if event.job is not None:
            yield None
