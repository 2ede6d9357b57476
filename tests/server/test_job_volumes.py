"""What of the storage can be mounted where in a job."""

from __future__ import annotations

import shlex

import pytest

from neuro.client import Client
from neuro.domain.errors import InvalidInput
from tests.server.jobs import finished, output_of, submit

ONLY_SQLITE = "What can be mounted is the storage's; what a job keeps of it is in test_jobs.py."


def volume(client: Client, path: str, target: str, *, read_only: bool = False) -> dict[str, object]:
    uri = f"storage://default/{client.user}/volumes-{id(client)}{path}"
    return {"src_storage_uri": uri, "dst_path": target, "read_only": read_only}


async def write(client: Client, script: str) -> None:
    """Run a script with the folder of the test's volumes at /v."""
    line = shlex.join(["sh", "-ec", script])
    job = await finished(client, await submit(client, line, volumes=[volume(client, "", "/v")]))
    assert job.history.exit_code == 0


async def test_one_file_can_be_written_to(client: Client) -> None:
    await write(client, "echo before > /v/one")
    file = volume(client, "/one", "/one")

    job = await submit(client, "sh -c 'cat /one; echo after > /one'", volumes=[file])

    assert (await output_of(client, job), (await client.jobs.get(job.id)).history.description) == (
        b"before\n",
        None,
    )
    seen = await submit(client, "cat /one", volumes=[{**file, "read_only": True}])
    assert await output_of(client, seen) == b"after\n"


async def test_a_volume_without_a_place_in_a_read_only_one_is_refused(client: Client) -> None:
    await write(client, "mkdir -p /v/a /v/other; touch /v/file")
    outer = volume(client, "/a", "/a", read_only=True)

    with pytest.raises(InvalidInput, match=r"'/a/b/c' has no place: .* has no 'b/c'\. Make it"):
        await submit(client, "true", volumes=[outer, volume(client, "/other", "/a/b/c")])
    await write(client, "mkdir -p /v/a/b")
    with pytest.raises(InvalidInput, match="is a file, and a folder is there"):
        await submit(client, "true", volumes=[outer, volume(client, "/file", "/a/b")])


async def test_a_volume_with_a_place_in_a_read_only_one_is_mounted(client: Client) -> None:
    await write(client, "mkdir -p /v/a/b /v/other; echo inner > /v/other/word")
    volumes = [volume(client, "/other", "/a/b"), volume(client, "/a", "/a", read_only=True)]

    job = await submit(client, "cat /a/b/word", volumes=volumes)

    assert await output_of(client, job) == b"inner\n"
