"""Looking into a run: its output, terminals and commands in it, connections to it, what it uses.

Everything here goes to the run's supervisor, or reads what that writes; nothing changes the run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable, Collection
from datetime import UTC, datetime
from typing import Any

from neuro.engines.base import (
    Connection,
    LogChunk,
    LogExtent,
    NotListening,
    RunNotFound,
    RunRef,
    Session,
    Usage,
)
from neuro.engines.sandbox import layout, measuring, wire
from neuro.engines.sandbox.launch import SHARED
from neuro.engines.sandbox.link import Link
from neuro.engines.sandbox.logs import LogReader, Stamper, extent
from neuro.engines.sandbox.session import AttachSession, ExecSession, TcpConnection, Wire
from neuro.engines.sandbox.taking import take_streams

_CONNECT_PATIENCE = 10.0  # seconds for a TCP connection inside a run


class Looking:
    """The part of the engine's protocol that looks into runs; each method is the protocol's."""

    def __init__(self, folder: str, live: Callable[[str], Link | None]) -> None:
        """``live`` gives the link to the run of a job that goes on, if one does."""
        self._folder = folder
        self._live = live

    async def logs(
        self, job_id: str, *, offset: int = 0, follow: bool = True, timestamps: bool = False
    ) -> AsyncGenerator[LogChunk, None]:
        """See the protocol."""
        reader = LogReader(layout.output_folder(self._folder, job_id), offset)
        try:
            async for chunk in self._read(job_id, reader, follow=follow, timestamps=timestamps):
                yield chunk
        except FileNotFoundError:
            raise RunNotFound(job_id) from None
        finally:
            reader.close()

    async def log_extent(self, job_id: str, *, since: datetime | None = None) -> LogExtent:
        """See the protocol."""
        moment = None if since is None else int(since.timestamp() * 1_000_000) * 1000
        folder = layout.output_folder(self._folder, job_id)
        try:
            return LogExtent(*await asyncio.to_thread(extent, folder, moment))
        except FileNotFoundError:
            raise RunNotFound(job_id) from None

    async def _read(
        self,
        job_id: str,
        reader: LogReader,
        *,
        follow: bool,
        timestamps: bool,
        only: Link | None = None,
    ) -> AsyncGenerator[LogChunk, None]:
        stamper = Stamper(layout.output_folder(self._folder, job_id)) if timestamps else None
        while True:
            # Asked before reading: what comes between is read in the next round.
            link = (only if not only.over.is_set() else None) if only else self._live(job_id)
            while data := await reader.read():
                end = reader.position
                start = end - len(data)
                if stamper is not None:
                    data = await asyncio.to_thread(stamper.stamp, data, end)
                yield LogChunk(start, end, data)
            if link is None or not follow:
                return
            await link.wrote_after(reader.position)

    async def attach(self, job_id: str, *, stdin: bool, output: bool) -> Session:
        """See the protocol."""
        link = self._going(job_id)
        first = wire.json_frame(wire.ATTACH, {"stdin": stdin})
        connection, opened = await self._session(link.ref, first)
        stream: AsyncGenerator[LogChunk, None] | None = None
        if output:
            reader = LogReader(layout.output_folder(self._folder, job_id), opened["end"])
            stream = self._read(job_id, reader, follow=True, timestamps=False, only=link)
        return AttachSession(connection, link, stream, stdin=stdin, taken=opened.get("taken", 0))

    async def exec(self, job_id: str, argv: Collection[str], *, tty: bool) -> Session:
        """See the protocol."""
        link = self._going(job_id)
        request = {"argv": [*argv], "tty": tty}
        connection, opened = await self._session(link.ref, wire.json_frame(wire.EXEC, request))
        if "error" in opened:
            await connection.close()
            raise RunNotFound(job_id)
        return ExecSession(connection)

    async def _session(self, ref: RunRef, first: bytes) -> tuple[Wire, dict[str, Any]]:
        connection = await Wire.open(self._dial(ref), first)
        opened = await connection.receive()
        if opened is None or opened[0] != wire.OPENED:
            await connection.close()
            raise RunNotFound(ref.job_id)
        return connection, json.loads(opened[1])

    def _dial(self, ref: RunRef) -> socket.socket:
        try:
            return layout.connect(layout.run_folder(self._folder, ref.job_id, ref.run))
        except OSError:
            raise RunNotFound(ref.job_id) from None

    async def connect(self, job_id: str, port: int) -> Connection:
        """See the protocol."""
        link = self._going(job_id)
        if link.state.get("network") == SHARED:
            if not await asyncio.to_thread(measuring.listens, link.init, port):
                raise NotListening(f"nothing in {job_id} listens on port {port}")
            inside = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        else:
            inside = await self._socket_inside(link.ref)
        inside.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_PATIENCE):
                await asyncio.get_running_loop().sock_connect(inside, ("127.0.0.1", port))
                reader, writer = await take_streams(inside)
        except (OSError, TimeoutError):
            inside.close()
            raise NotListening(f"nothing in {job_id} listens on port {port}") from None
        return TcpConnection(reader, writer)

    async def _socket_inside(self, ref: RunRef) -> socket.socket:
        """A TCP socket that the supervisor made in the run's network."""
        loop = asyncio.get_running_loop()
        with self._dial(ref) as supervisor:
            supervisor.setblocking(False)
            await loop.sock_sendall(supervisor, wire.frame(wire.CONNECT))
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(supervisor, _resolve, readable)
            try:
                await readable
            finally:
                loop.remove_reader(supervisor)
            try:
                _, fds, _, _ = socket.recv_fds(supervisor, 1, 1)
            except OSError:
                fds = []
        if not fds:
            raise RunNotFound(ref.job_id)
        return socket.socket(fileno=fds[0])

    async def usage(self, job_id: str) -> Usage:
        """See the protocol. The first sample's ``cpu`` is the average since the run began."""
        link = self._going(job_id)
        sample = await asyncio.to_thread(measuring.sample, link.ref, link.state)
        if sample is None:
            raise RunNotFound(job_id)
        now = time.monotonic()
        age = max(0.001, (time.time_ns() - (link.started or time.time_ns())) / 1e9)
        before, used = link.previous_usage or (now - age, 0.0)
        elapsed = max(0.001, now - before)
        link.previous_usage = (now, sample.cpu_seconds)
        return Usage(
            at=datetime.now(UTC),
            cpu=max(0.0, (sample.cpu_seconds - used) / elapsed),
            memory=sample.memory,
            gpu_utilization=sample.gpu_utilization,
            gpu_memory=sample.gpu_memory,
        )

    def _going(self, job_id: str) -> Link:
        link = self._live(job_id)
        if link is None:
            raise RunNotFound(job_id)
        return link


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
