"""How many descriptors the server has, where the machine's soft limit is a small one."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

from neuro.client import Client
from tests.server.jobs import output_of, submit
from tests.server_process import ServerProcess

SOFT = 256


def begin(folder: Path) -> ServerProcess:
    """A server that was started where the soft limit is small."""
    server = ServerProcess(folder)
    server.forks = False  # a fork has the limits of who forks it
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, before[1]))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return server


async def test_the_server_opens_more_than_the_soft_limit_and_its_jobs_keep_that(
    tmp_path: Path,
) -> None:
    server = begin(tmp_path / "data")
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
