"""Which bytes of a job's log a request asks for (docs/reference/wire-protocol.md#logs)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from neuro.engines.base import RunNotFound
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService


class LogQuery(msgspec.Struct, frozen=True):
    """Which part of a log: ``tail`` its last lines, or else all but its first ``skip`` bytes.

    ``separator`` and ``debug`` are sent by the reference clients and change nothing here.
    """

    since: datetime | None = None
    timestamps: bool = False
    follow: bool = True
    tail: Annotated[int, msgspec.Meta(ge=0)] | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    separator: str | None = None
    debug: bool = False


def _log_of(
    jobs: JobService, record: JobRecord, query: LogQuery, *, follow: bool
) -> AsyncIterator[bytes]:
    since = query.since
    if since is not None and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)
    engine = jobs.engine_of(record)
    return engine.logs(record.id, since=since, follow=follow, timestamps=query.timestamps)


async def bytes_left_out(jobs: JobService, record: JobRecord, query: LogQuery) -> int:
    """How many bytes of the log come before what the query asks for.

    Raises NotFound where the job's engine is gone: before any of an answer is sent.
    """
    jobs.engine_of(record)
    if query.tail is None:
        return query.skip
    newlines, last = 0, b"\n"
    async for chunk in _present(jobs, record, query):
        newlines, last = newlines + chunk.count(b"\n"), chunk[-1:]
    lines = newlines - query.tail + (last != b"\n")
    position = 0
    async for chunk in _present(jobs, record, query):
        if lines <= 0:
            break
        here = chunk.count(b"\n")
        if lines <= here:
            end = -1
            for _ in range(lines):
                end = chunk.find(b"\n", end + 1)
            return position + end + 1
        lines, position = lines - here, position + len(chunk)
    return position


async def _present(
    jobs: JobService, record: JobRecord, query: LogQuery
) -> AsyncGenerator[bytes, None]:
    with suppress(RunNotFound):
        async for chunk in _log_of(jobs, record, query, follow=False):
            yield chunk
            await asyncio.sleep(0)  # What is in the page cache is read without a pause.


async def log_chunks(
    jobs: JobService, record: JobRecord, query: LogQuery, left_out: int
) -> AsyncGenerator[bytes]:
    """A job's output: waits for its start, goes on across restarts, ends with the job."""
    if query.follow:
        record = await jobs.wait_until(record, lambda job: job.run_started)
    sent = left_out
    while True:
        run = record.run
        skip = sent
        try:
            async for chunk in _log_of(jobs, record, query, follow=query.follow):
                new = chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))
                if new:
                    sent += len(new)
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
        if record.status.is_finished:
            await jobs.is_told()
            return
