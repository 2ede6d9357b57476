"""Jobs of one person reach each other by the names in their environment; nobody else's do."""

from __future__ import annotations

import pytest

from neuro.client import Client
from tests.server.jobs import finished, output_of, running, submit

ONLY_SQLITE = "Who reaches whom is the network's; jobs themselves are in test_jobs.py."

SERVE = 'exec python3 -c "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"'
ASK = 'python3 -c "import urllib.request as r; print(r.urlopen(\\"http://{}:8000/\\").status)"'

pytestmark = pytest.mark.root


async def test_own_jobs_are_reached_by_each_of_their_names(client: Client) -> None:
    job = await running(client, SERVE, name="trainer")
    names = [
        job.id,
        f"{job.id}.platform-jobs",
        "trainer",
        f"trainer--{job.owner}.platform-jobs",
    ]
    until_up = f"until {ASK.format('trainer')}; do sleep 0.1; done"

    asking = await submit(
        client, "sh -c '" + " && ".join([until_up, *(ASK.format(name) for name in names)]) + "'"
    )

    assert (await output_of(client, asking)).endswith(b"200\n" * len(names))
    await client.jobs.kill(job.id)
    await finished(client, job)


async def test_jobs_of_another_person_are_not(client: Client, alice: Client) -> None:
    job = await running(client, SERVE, name="trainer")

    for name in ("trainer", job.id, f"{job.id}.platform-jobs"):
        asking = await finished(alice, await submit(alice, f"sh -c '{ASK.format(name)}'"))
        assert asking.history.exit_code == 1
    await client.jobs.kill(job.id)
    await finished(client, job)
