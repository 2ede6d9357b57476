"""Which bytes of a job's log a request asks for (docs/reference/wire-protocol.md#logs)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from neuro.engines.base import Engine, LogExtent, RunNotFound
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService

_BLOCK = 256 << 10  # what is looked through at once for the last lines


class LogQuery(msgspec.Struct, frozen=True):
    """Which part of a log: from ``offset``, ``since`` a moment, or its last ``tail`` lines.

    Who gives an ``offset`` (0 too) comes back with another one, also where bytes are missing that
    are not kept any more: the answer breaks off there. ``skip`` is what the command line sent
    before it knew of offsets: bytes of the answer to leave out. ``separator`` and ``debug`` are
    sent by the reference clients and change nothing here.
    """

    since: datetime | None = None
    timestamps: bool = False
    follow: bool = True
    tail: Annotated[int, msgspec.Meta(ge=0)] | None = None
    offset: Annotated[int, msgspec.Meta(ge=0)] | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    separator: str | None = None
    debug: bool = False


class LogGap(Exception):
    """Bytes are missing in a log, and its reader, who knows of offsets, is to come back."""


class LogOpening(msgspec.Struct, frozen=True):
    """Where an answer begins: at ``offset`` of the output, ``skip`` bytes of the answer later.

    ``left_out`` is the number that the client comes back with.
    """

    offset: int
    skip: int
    left_out: int


async def log_opening(jobs: JobService, record: JobRecord, query: LogQuery) -> LogOpening:
    """Where the answer to a query begins.

    Raises NotFound where the job's engine is gone: before any of an answer is sent.
    """
    engine = jobs.engine_of(record)
    if record.is_active and record.run == 0 and not record.run_started:
        return LogOpening(0, query.skip, query.skip)  # it has printed nothing
    since = query.since
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    try:
        extent = await engine.log_extent(record.id, since=since)
    except RunNotFound:
        extent = LogExtent(0, 0)
    if query.tail is not None:
        start = await _last_lines(engine, record.id, extent, query.tail)
    elif query.offset is not None:
        start = max(extent.first, query.offset)
    elif since is not None or query.timestamps:
        return LogOpening(extent.first, query.skip, query.skip)
    else:
        start = max(extent.first, query.skip)
    return LogOpening(start, 0, start)


async def _last_lines(engine: Engine, job_id: str, extent: LogExtent, count: int) -> int:
    """The offset at which the last lines begin. It is read from its end: logs are long."""
    if not count:
        return extent.end
    position = extent.end
    while position > extent.first:
        block = max(extent.first, position - _BLOCK)
        data = await _bytes_between(engine, job_id, block, position)
        if position == extent.end and not data.endswith(b"\n"):
            count -= 1
        end = len(data)
        while (end := data.rfind(b"\n", 0, end)) >= 0:
            if count == 0:
                return position - len(data) + end + 1
            count -= 1
        if len(data) < position - block:  # the rest was dropped meanwhile
            return position - len(data)
        position = block
        await asyncio.sleep(0)  # What is in the page cache is read without a pause.
    return extent.first


async def _bytes_between(engine: Engine, job_id: str, start: int, end: int) -> bytes:
    """What is kept of the bytes between two offsets, up to the second."""
    parts = []
    async with aclosing(_log(engine, job_id, start)) as chunks:
        async for first, data in chunks:
            parts.append(data[: max(0, end - first)])
            if first + len(data) >= end:
                break
    return b"".join(parts)


async def _log(engine: Engine, job_id: str, offset: int) -> AsyncGenerator[tuple[int, bytes], None]:
    async for chunk in engine.logs(job_id, offset=offset, follow=False):
        yield chunk.start, chunk.data


async def log_chunks(
    jobs: JobService, record: JobRecord, query: LogQuery, opening: LogOpening
) -> AsyncGenerator[bytes]:
    """A job's output: waits for its start, goes on across restarts, ends with the job.

    Raises LogGap where bytes are missing for one who gave an offset and follows.
    """
    if query.follow:
        record = await jobs.wait_until(record, lambda job: job.run_started)
    engine = jobs.engine_of(record)
    at, skip = opening.offset, opening.skip
    in_line = False
    while True:
        run = record.run
        log = engine.logs(record.id, offset=at, follow=query.follow, timestamps=query.timestamps)
        is_first = True
        try:
            async for chunk in log:
                if chunk.start > at and query.offset is not None and query.follow:
                    raise LogGap
                data = chunk.data
                if is_first and in_line and query.timestamps and chunk.start == at:
                    data = data.partition(b" ")[2]  # the line has its time
                is_first, at, in_line = False, chunk.end, not data.endswith(b"\n")
                new = data[skip:]
                skip = max(0, skip - len(data))
                if new:
                    yield new
        except RunNotFound:
            pass
        if not query.follow:
            return
        # The engine's last word comes a moment before the record's; and a job may restart.
        record = await jobs.wait_until(
            record,
            lambda job, run=run: job.run != run and job.run_started,  # type: ignore[misc]
        )
        # Short runs may all be over before anybody looks: what they printed is yet to be read.
        if record.status.is_finished and record.run == run:
            await jobs.is_told()
            return
