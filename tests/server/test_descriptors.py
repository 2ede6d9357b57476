"""How many descriptors the server has, where the machine's soft limit is a small one."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from neuro.client import Client
from tests.server.jobs import output_of, submit
from tests.server_process import ServerProcess

SOFT = 256


async def test_the_server_opens_more_than_the_soft_limit_and_its_jobs_keep_that(
    tmp_path: Path,
) -> None:
    limit = ("prlimit", f"--nofile={SOFT}:")
    # A fork has the limits of who forks it.
    server = ServerProcess(tmp_path / "data", through=limit, forks=False)
    server.start()
    address = urlsplit(server.url)
    with ExitStack() as stack:
        stack.callback(server.stop)
        for _ in range(2 * SOFT):
            stack.enter_context(socket.create_connection((address.hostname, address.port)))

        async with Client.connect(server.url, server.token) as client:
            job = await submit(client, "sh -c 'ulimit -Sn'")
            output = await output_of(client, job)

        held = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
    assert output == f"{SOFT}\n".encode()
    assert held > 2 * SOFT
