"""``neuro port-forward``: local ports that lead into a job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from threading import Event, Thread

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import ILLEGAL, IO, Failure
from neuro.cli.job.follow import wait_for_start
from neuro.cli.job.output import Progress
from neuro.cli.lazy import Command
from neuro.client import Client
from neuro.client.connections import JobConnection
from neuro.domain.errors import InvalidInput, PlatformError


def parse_ports(text: str) -> tuple[int, int]:
    """Read ``LOCAL:REMOTE``. Raises InvalidInput."""
    local, colon, remote = text.partition(":")
    if colon and local.isdecimal() and remote.isdecimal():
        pair = int(local), int(remote)
        if all(0 < port < 65536 for port in pair):
            return pair
    raise InvalidInput(f"'{text}' is not a pair of ports: write LOCAL:REMOTE, for example 8080:80.")


class Forwarder:
    """Listens on local ports; each connection becomes a WebSocket into the job."""

    def __init__(self, context: Context, client: Client, job_id: str) -> None:
        self._context = context
        self._client = client
        self._job_id = job_id

    async def listen(self, ports: Sequence[tuple[int, int]]) -> list[asyncio.Server]:
        """Open the local ports. Raises Failure where one is taken."""
        servers = []
        for local, remote in ports:
            try:
                server = await asyncio.start_server(self._handler(remote), "localhost", local)
            except OSError as error:
                raise Failure(
                    f"Cannot listen on port {local}: {error.strerror or error}. Choose"
                    " another one.",
                    IO,
                ) from None
            servers.append(server)
            self._context.out.note(
                f"Port localhost:{local} will be forwarded to port {remote} of {self._job_id}"
            )
        return servers

    def _handler(self, remote: int):  # type: ignore[no-untyped-def]
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with self._client.jobs.port_forward(self._job_id, remote) as connection:
                    await _carry(reader, writer, connection)
            except PlatformError as error:
                said, where = str(error), f"port {remote} of"
                self._context.out.error(said if where in said else f"Port {remote}: {said}")
            except OSError:
                pass  # The local program has gone.
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        return handle


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: JobConnection
) -> None:
    async def outward() -> None:
        while data := await reader.read(1 << 16):
            await connection.send(data)
        await connection.send_eof()

    async def inward() -> None:
        while (data := await connection.receive()) is not None:
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await connection.wait_closed()  # the local program may still send

    sending = asyncio.ensure_future(outward())
    try:
        await inward()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def forward(
    context: Context, job_id: str, ports: Sequence[tuple[int, int]], ready: Event | None = None
) -> None:
    """Forward until cancelled. ``ready`` is set once the ports are open.

    Where nobody waits for that, the person at the terminal is told how to end it.
    """
    async with context.aio_client() as client:
        servers = await Forwarder(context, client, job_id).listen(ports)
        if ready:
            ready.set()
        else:
            context.out.note("Press ^C to stop forwarding")
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.serve_forever())


def forward_in_background(context: Context, job_id: str, texts: Sequence[str]) -> None:
    """Forward for as long as this process lives. Raises Failure where a port is taken."""
    ports = [parse_ports(text) for text in texts]
    ready, failures = Event(), list[BaseException]()

    def work() -> None:
        try:
            asyncio.run(forward(context, job_id, ports, ready))
        except BaseException as error:
            failures.append(error)
            ready.set()

    Thread(target=work, name="port-forward", daemon=True).start()
    ready.wait()
    if failures:
        raise failures[0]


@click.command(
    "port-forward",
    cls=Command,
    examples="""
        neuro port-forward my-notebook 8888:8888
        neuro port-forward my-job 2222:22 6006:6006
    """,
)
@click.argument("job")
@click.argument("local_remote_port", nargs=-1, required=True)
@pass_context
def command(context: Context, job: str, local_remote_port: tuple[str, ...]) -> int:
    """Forward local ports into JOB, once it runs; LOCAL:REMOTE may be repeated."""
    ports = [parse_ports(text) for text in local_remote_port]
    found = context.run(context.client.jobs.find(job))
    with suppress(KeyboardInterrupt):
        if not found.status.is_finished:
            found = wait_for_start(context, found, Progress(context.out))
        if found.status.is_finished:
            raise Failure(f"Job {job} is over ({found.status.value}).", ILLEGAL)
        asyncio.run(forward(context, found.id, ports))
    return 0
