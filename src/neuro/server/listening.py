"""The sockets that the server listens on, and the application behind them."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace

from aiohttp import web

from neuro.domain.errors import Conflict
from neuro.server.http.connections import Patience, Runner
from neuro.server.storage.paths import MAX_LINE_BYTES

EVERYWHERE = ("0.0.0.0", "::", "")
# How long an ordinary request (an upload, say) may take to end; streams are ended at once.
SHUTDOWN_SECONDS = 30.0
# How long the rest of a refused body is read, so that its sender gets to see the answer.
LINGERING_SECONDS = 3.0


NOT_HERE = (
    "Give --host an address that this machine has: 127.0.0.1 for this machine alone, 0.0.0.0 for"
    " others too."
)
NOT_OF_JOBS = (
    "Its jobs look for the server at this address, which this machine or container does not have:"
    " let the server run where the engine's network is, or give it --host 0.0.0.0 and forward the"
    " port to it."
)


def bind(host: str, port: int, not_here: str = NOT_HERE) -> socket.socket:
    """A bound TCP socket; port 0 means any free one. Raises Conflict, saying what to do.

    ``not_here`` says it where the machine lacks the address.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise Conflict(
            f"Cannot listen on {host}:{port}: {error.strerror or error}."
            f" {_way_out(error, not_here)}"
        ) from error
    return listener


def _way_out(error: OSError, not_here: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Choose another port with --port, or stop what uses this one."
    if error.errno == errno.EACCES:
        return "Ports below 1024 are root's: choose another one with --port."
    return not_here


def bind_for_jobs(host: str, port: int, addresses: Iterable[str]) -> list[socket.socket]:
    """Sockets on the ``addresses`` at which jobs find this machine.

    None where the server listens there, or everywhere, already.
    """
    if host in EVERYWHERE:
        return []
    return [bind(each, port, NOT_OF_JOBS) for each in sorted(set(addresses)) if each != host]


def bind_for_engines(
    stack: ExitStack | AsyncExitStack,
    listener: socket.socket,
    addresses: Mapping[str, str],
    missed: Callable[[str, Conflict], None],
) -> dict[str, list[socket.socket]]:
    """The same for each engine that is in ``addresses``, by the address.

    ``missed`` is told which engine's jobs cannot find the server, and why.
    """
    host, port = listener.getsockname()[:2]
    found: dict[str, list[socket.socket]] = {}
    for engine, address in addresses.items():
        if address in found:
            continue
        try:
            bound = bind_for_jobs(host, port, [address])
        except Conflict as error:
            missed(engine, error)
        else:
            found[address] = [stack.enter_context(each) for each in bound]
    return found


def address_of(host: str, port: int) -> str:
    """The API's URL for clients on this machine."""
    if host in EVERYWHERE:
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1"


async def listen(
    stack: AsyncExitStack,
    app: web.Application,
    listeners: list[socket.socket],
    patience: Patience,
    *,
    passes_on: bool = False,
) -> web.BaseRunner:
    """Serve on bound sockets until the stack unwinds.

    Of a server that ``passes_on`` streams to others, each is two connections.
    """
    runner = Runner(
        app,
        within_descriptors(patience, 3 if passes_on else 2),
        access_log=None,
        max_line_size=MAX_LINE_BYTES,
        # Of a few bytes zlib makes a thousand times as many, before anybody knows the sender.
        auto_decompress=False,
        lingering_time=LINGERING_SECONDS,
        # A client that leaves ends its stream at once; what must not be cut short is shielded.
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await listen_on(runner, listeners)
    return runner


async def listen_on(runner: web.BaseRunner, listeners: Iterable[socket.socket]) -> None:
    """Serve on more bound sockets."""
    for listener in listeners:
        await web.SockSite(runner, listener, backlog=1024).start()


def within_descriptors(patience: Patience, part: int) -> Patience:
    """At most one ``part`` of the descriptors that this process may open are connections of others.

    Nor may one address have all of them: files, the database and the ways to jobs need some.
    """
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return patience
    return replace(
        patience,
        connections_per_address=min(patience.connections_per_address, max(16, descriptors // 4)),
        connections=min(patience.connections, max(32, descriptors // part)),
    )
