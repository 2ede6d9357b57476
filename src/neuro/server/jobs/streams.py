"""Live streams of jobs: logs, attach, exec, telemetry, port forwarding.

See docs/reference/wire-protocol.md#monitoring.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import msgspec
from aiohttp import WSCloseCode, web

from neuro.domain.errors import InvalidInput, NotFound, NotPermitted, Unavailable
from neuro.domain.jobs import LEFT_OUT_HEADER, JobStatus, UsageSample
from neuro.domain.texts import Lines
from neuro.engines.base import (
    Attaches,
    Channel,
    Measures,
    NotListening,
    RunNotFound,
    Session,
)
from neuro.server.http.routes import Call
from neuro.server.http.streams import BYTES, binary_messages, websocket
from neuro.server.jobs.abilities import attaching, connecting, executing, measuring
from neuro.server.jobs.companions import Companion, Companions
from neuro.server.jobs.forwarding import HALF_CLOSE_PROTOCOL, join
from neuro.server.jobs.logs import LogGap, LogQuery, log_chunks, log_opening
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService

T = TypeVar("T")

# Clients of the third protocol speak of their input on a channel of its own, both ways: the server
# says how much the process has taken, the client where the input ends.
CHANNEL_PROTOCOLS = ("v3.channels.neu.ro", "v2.channels.neu.ro")
STATUS_CHANNEL = b"\x03"
RESIZE_CHANNEL = 4
INPUT_CHANNEL = 5
TELEMETRY_SECONDS = 1.0
# How long a log that was sent whole waits for its reader, who may print slowly.
READ_TO_THE_END_SECONDS = 60.0
MAX_COMMAND = 64 * 1024
_MIB = 1 << 20


class AttachQuery(msgspec.Struct, frozen=True):
    """Which streams the client wants."""

    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True


class ExecQuery(msgspec.Struct, frozen=True):
    """``cmd`` is one shell-quoted string; it is split, and no shell sees it."""

    cmd: Lines
    tty: bool = False
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True


class InputEnd(msgspec.Struct, frozen=True):
    """What a client says on the input's channel."""

    end: bool = False


class Resize(msgspec.Struct, frozen=True):
    """A terminal's new size, in rows and columns."""

    height: int
    width: int


async def log_over_http(
    call: Call, jobs: JobService, record: JobRecord, query: LogQuery, companion: Companion | None
) -> web.StreamResponse:
    """The log as one chunked answer of raw bytes; a header says how many come before them."""
    opening = await log_opening(jobs, record, query)
    headers = {"Content-Type": BYTES, LEFT_OUT_HEADER: str(opening.left_out)}
    response = web.StreamResponse(headers=headers)
    if companion is not None:
        response.force_close()
    await response.prepare(call.request)
    try:
        async with aclosing(log_chunks(jobs, record, query, opening)) as chunks:
            async for chunk in chunks:
                await _unless_muted(response.write(chunk), companion)
    except LogGap:
        # An answer that broke off is not taken for the whole. What comes next begins after the gap.
        if call.request.transport is not None:
            call.request.transport.abort()
        return response
    await response.write_eof()
    if companion is not None:
        # The client closes the connection when it has read to the end, which cancels this.
        await asyncio.sleep(READ_TO_THE_END_SECONDS)
    return response


async def log_over_websocket(
    call: Call, jobs: JobService, record: JobRecord, query: LogQuery, companion: Companion | None
) -> web.WebSocketResponse:
    """The log as binary messages; the server closes at its end."""
    opening = await log_opening(jobs, record, query)
    socket = await websocket(call, close_timeout=READ_TO_THE_END_SECONDS)

    async def send() -> None:
        async with aclosing(log_chunks(jobs, record, query, opening)) as chunks:
            async for chunk in chunks:
                await _unless_muted(socket.send_bytes(chunk), companion)

    try:
        await _until_first(send(), _until_closed(socket))
    except LogGap:
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER)
    # The client answers the closing when it has read all before it.
    await socket.close()
    return socket


async def _unless_muted(sending: Coroutine[Any, Any, None], companion: Companion | None) -> None:
    if companion is None:
        await sending
    elif companion.muted:
        sending.close()
    else:
        await sending
        companion.stir()


async def attach(
    call: Call, jobs: JobService, record: JobRecord, query: AttachQuery, companions: Companions
) -> web.WebSocketResponse:
    """Connect to the main process.

    A finished job is refused only to a probe (neither stdout nor stderr): clients attach to short
    jobs after their end, and would drop the log if they were refused (rules 3 and 4
    of docs/reference/wire-protocol.md#attach).
    """
    wants_output = query.stdout or query.stderr
    was_over = record.status.is_finished
    if was_over and not wants_output:
        raise NotFound(f"Job {record.id} is not running.")
    engine = jobs.engine_of(record)
    if query.stdin or not wants_output:
        attaching(engine, record)  # The output alone is in the log.
    socket = await websocket(call, protocols=CHANNEL_PROTOCOLS)
    if was_over:
        # The client asks for the job next, sees that it is over, and waits for its log alone.
        await _until_closed(socket)
        return socket
    record = await jobs.wait_until(record, lambda job: job.run_started)
    companion = await companions.of(call, record.id) if wants_output else None
    caught_up = False
    if companion is not None and query.tty:
        caught_up = await companion.caught_up()
    elif companion is not None:
        # The log says all, and across restarts: what could be attached to has no keyboard.
        await _until_first(_wait_for(companion.over), _until_closed(socket))
    if socket.closed:
        return socket
    session = None
    if not record.status.is_finished and isinstance(engine, Attaches):
        with suppress(RunNotFound):
            session = await engine.attach(record.id, stdin=query.stdin, output=wants_output)
    if session is not None:
        # From here on a terminal's output comes over this connection.
        if companion is not None and caught_up:
            companion.muted = True
        try:
            if query.stdin:
                await _send_input_state(socket, session)
            await _until_first(_pump_out(socket, session), _pump_in(socket, session, query.stdin))
        finally:
            # The sender has left for good, unless it is the server that ends the connection: then
            # the sender comes back to the next one.
            has_left = socket.closed or call.request.transport is None
            if has_left and query.stdin and not record.specification.container.tty:
                await session.write_eof()
            await session.close()
    if not socket.closed:
        # Clients read the job's state when the stream ends, so the state comes first.
        record = await jobs.wait_until(record, lambda job: not job.run_started)
        await jobs.is_told()
        if record.status.is_finished:
            await _send_exit_code(socket, record.exit_code)
    await socket.close()
    return socket


async def _wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def execute(
    call: Call, jobs: JobService, record: JobRecord, query: ExecQuery
) -> web.WebSocketResponse:
    """Run another process inside a running job.

    Raises NotPermitted for a control job: what runs there runs beside the capacity.
    """
    if record.specification.control:
        raise NotPermitted(
            f"Job {record.id} drives a bake, and runs nothing else: `neuro logs {record.id}` shows"
            " what it does, and `neuro run` starts a job for commands of your own."
        )
    argv = _split(query.cmd)
    engine = executing(jobs.engine_of(record), record)
    session = await _in_running(record, engine.exec(record.id, argv, tty=query.tty))
    try:
        socket = await websocket(call, protocols=CHANNEL_PROTOCOLS)
        if not (query.stdin or query.tty):
            await session.write_eof()
        await _until_first(_pump_out(socket, session), _pump_in(socket, session, query.stdin))
        if not socket.closed:
            await _send_exit_code(socket, await session.wait())
    finally:
        await session.close()
    await socket.close()
    return socket


def _split(command: str) -> list[str]:
    if len(command) > MAX_COMMAND:
        raise InvalidInput(f"The command is over {MAX_COMMAND} characters.")
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise InvalidInput(f"invalid command format: {error} (check the quotes)") from None
    if not argv:
        raise InvalidInput("Give a command to run, for example: neuro exec my-job bash")
    return argv


async def telemetry(call: Call, jobs: JobService, record: JobRecord) -> web.WebSocketResponse:
    """One sample a second while the job runs."""
    engine = measuring(jobs.engine_of(record), record)
    socket = await websocket(call)
    await _until_first(_send_samples(socket, engine, record.id), _until_closed(socket))
    await socket.close()
    return socket


async def _send_samples(socket: web.WebSocketResponse, engine: Measures, job_id: str) -> None:
    with suppress(RunNotFound):
        while True:
            usage = await engine.usage(job_id)
            sample = UsageSample(
                cpu=usage.cpu,
                memory=usage.memory / _MIB,
                memory_bytes=usage.memory,
                timestamp=usage.at.timestamp(),
                gpu_duty_cycle=usage.gpu_utilization,
                gpu_memory=None if usage.gpu_memory is None else usage.gpu_memory / _MIB,
                gpu_memory_bytes=usage.gpu_memory,
            )
            await socket.send_str(msgspec.json.encode(sample).decode())
            await asyncio.sleep(TELEMETRY_SECONDS)


async def forward_port(
    call: Call, jobs: JobService, record: JobRecord, port: int
) -> web.WebSocketResponse:
    """One TCP connection into a job as binary messages."""
    if not 1 <= port <= 65535:
        raise InvalidInput(f"Port {port} is not between 1 and 65535.")
    engine = connecting(jobs.engine_of(record), record)
    try:
        connection = await _in_running(record, engine.connect(record.id, port))
    except NotListening:
        raise Unavailable(f"Nothing listens on port {port} of job {record.id}.") from None
    try:
        socket = await websocket(call, protocols=(HALF_CLOSE_PROTOCOL,))
        await join(socket, connection)
    finally:
        await connection.close()
    await socket.close()
    return socket


async def _in_running(record: JobRecord, opening: Coroutine[Any, Any, T]) -> T:
    if record.status is not JobStatus.RUNNING:
        opening.close()
        raise NotFound(f"Job {record.id} is not running: its status is {record.status}.")
    try:
        return await opening
    except RunNotFound:
        raise NotFound(f"Job {record.id} is not running.") from None


async def _pump_out(socket: web.WebSocketResponse, session: Session) -> None:
    while (item := await session.read()) is not None:
        channel, data = item
        if channel == Channel.STDIN:
            await _send_input_state(socket, session)
        else:
            await socket.send_bytes(bytes((channel,)) + data)


async def _send_input_state(socket: web.WebSocketResponse, session: Session) -> None:
    if socket.ws_protocol == CHANNEL_PROTOCOLS[0]:
        await socket.send_bytes(bytes((INPUT_CHANNEL,)) + msgspec.json.encode(session.input))


async def _pump_in(socket: web.WebSocketResponse, session: Session, stdin: bool) -> None:
    async for message in binary_messages(socket):
        if not message:
            continue
        channel, data = message[0], message[1:]
        if channel == Channel.STDIN and stdin and data:
            await session.write(data)
        elif channel == INPUT_CHANNEL and stdin:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                if msgspec.json.decode(data, type=InputEnd).end:
                    await session.write_eof()
        elif channel == RESIZE_CHANNEL:
            with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                size = msgspec.json.decode(data, type=Resize)
                if 0 < size.height < 1 << 16 and 0 < size.width < 1 << 16:
                    await session.resize(size.width, size.height)


async def _send_exit_code(socket: web.WebSocketResponse, code: int | None) -> None:
    if code is not None:
        with suppress(ConnectionError):
            await socket.send_bytes(STATUS_CHANNEL + msgspec.json.encode({"exit_code": code}))


async def _until_closed(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def _until_first(*sides: Coroutine[Any, Any, None]) -> None:
    """Run all sides until one ends, then end the others."""
    tasks = [asyncio.create_task(side) for side in sides]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ConnectionError):
            raise error
