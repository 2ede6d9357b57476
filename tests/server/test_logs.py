"""Logs by offset: whoever comes back goes on where they were, also after bytes were dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from neuro.cli.job.log_copy import LogCopy
from neuro.cli.outage import Outage
from neuro.client import Client
from neuro.client.blocking import run
from neuro.client.jobs import LogPart
from neuro.client.transport import ServerUnreachable
from neuro.domain.jobs import Job, JobStatus
from neuro.engines.base import LogChunk
from neuro.server.jobs.logs import LogOpening, LogQuery, log_chunks
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService
from tests.server.jobs import output_of, submit
from tests.server.test_job_events import record
from tests.servers.fleet import Member, fleet_of

SETTINGS = """
[[presets]]
name = "words"
cpu = 0.1
memory = "64M"
engine = "words"
[engines.words]
kind = "memory"
log_bytes = 40000
cpu = 64
memory = "64G"
"""
LONG = b"".join(b"%d\n" % number for number in range(1, 30001))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    folder = tmp_path_factory.mktemp("logs")
    with fleet_of("one", folder=folder, database=None, settings=SETTINGS) as fleet:
        yield fleet["one"]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "gate"


def until(gate: Path) -> str:
    """Words that wait for it."""
    return f"until test -e {gate}; do sleep 0.01; done"


async def prints(client: Client, script: str) -> str:
    """A job of these words."""
    return (await submit(client, f'sh -c "{script}"', preset_name="words")).id


async def taken(client: Client, job: str, part: LogPart) -> tuple[int, bytes]:
    async with client.jobs.log_part(job, part) as (start, chunks):
        return start, b"".join([chunk async for chunk in chunks])


async def test_an_answer_begins_at_any_offset(client: Client) -> None:
    job = await prints(client, "echo one; echo two; echo three")
    whole = b"one\ntwo\nthree\n"

    for offset in (0, 1, 4, 13, 14):
        part = LogPart(offset=offset)
        assert await taken(client, job, part) == (offset, whole[offset:])
    for tail, start in ((0, 14), (1, 8), (2, 4), (3, 0), (9, 0)):
        assert await taken(client, job, LogPart(tail=tail)) == (start, whole[start:])


async def test_the_last_of_many_lines_are_found_from_the_end(client: Client) -> None:
    job = await prints(client, "seq 5000; printf unfinished")
    whole = b"".join(b"%d\n" % number for number in range(1, 5001)) + b"unfinished"
    await output_of(client, await client.jobs.get(job))

    for lines in (1, 2, 1000, 5001, 6000):
        last = b"".join(whole.splitlines(keepends=True)[-lines:])
        assert await taken(client, job, LogPart(tail=lines)) == (len(whole) - len(last), last)


async def test_an_answer_breaks_off_where_bytes_are_missing(client: Client, gate: Path) -> None:
    job = await prints(client, f"echo begun; {until(gate)}; seq 30000")
    seen: list[bytes] = []

    async def follow() -> None:
        async with client.jobs.log_part(job, LogPart(offset=0)) as (_, chunks):
            async for chunk in chunks:
                seen.append(chunk)
                gate.touch()

    with pytest.raises(ServerUnreachable):
        await follow()

    whole = b"begun\n" + LONG
    assert seen == [b"begun\n"]
    start, rest = await taken(client, job, LogPart(offset=6))
    assert start == len(whole) - 40_000
    assert rest == whole[start:]


async def test_runs_that_are_over_before_anybody_looks_are_read_all_the_same() -> None:
    first = replace(record(), phase=Phase.RUNNING)
    last = replace(first, run=2).ended(JobStatus.SUCCEEDED, None, datetime.now(UTC))
    printed = [b"one\n"]

    class ShortRuns:
        """A job whose next two runs come and go while somebody waits for it."""

        async def logs(self, job_id: str, *, offset: int, **_: object) -> AsyncIterator[LogChunk]:
            if data := b"".join(printed)[offset:]:
                yield LogChunk(offset, offset + len(data), data)

        def engine_of(self, _: JobRecord) -> ShortRuns:
            return self

        async def wait_until(
            self, seen: JobRecord, holds: Callable[[JobRecord], bool]
        ) -> JobRecord:
            if not holds(seen):
                printed[1:] = [b"two\n", b"three\n"]
                return last
            return seen

        async def is_told(self) -> None:
            """One server."""

    chunks = log_chunks(cast(JobService, ShortRuns()), first, LogQuery(), LogOpening(0, 0, 0))

    assert b"".join([chunk async for chunk in chunks]) == b"one\ntwo\nthree\n"


async def test_one_that_knows_no_offsets_is_led_over_the_gap(client: Client, gate: Path) -> None:
    job = await prints(client, f"echo begun; {until(gate)}; seq 30000")
    seen = b""

    async with client.jobs.log_part(job, LogPart()) as (left_out, chunks):
        assert left_out == 0
        async for chunk in chunks:
            seen += chunk
            gate.touch()

    assert seen == b"begun\n" + LONG[-40_000:]


async def test_the_command_line_says_what_it_could_not_copy(
    server: Member, client: Client, gate: Path
) -> None:
    job = await prints(client, f"echo begun; {until(gate)}; seq 30000; sleep 0.1; echo over")
    copied: list[bytes] = []
    said: list[str] = []

    def write(data: bytes) -> None:
        copied.append(data)
        gate.touch()

    def copy() -> Job | None:
        async def all_of_it() -> Job | None:
            async with Client.blocking(server.url, server.token) as blocking:
                copy = LogCopy(blocking, job, write, Outage(said.append))
                copy.to_the_end()
                return copy.finished

        return run(all_of_it())

    finished = await asyncio.to_thread(copy)
    assert finished is not None
    assert (finished.id, finished.status) == (job, JobStatus.SUCCEEDED)

    whole = b"begun\n" + LONG + b"over\n"
    rest = b"".join(copied).removeprefix(b"begun\n")
    assert whole.endswith(rest)
    assert len(rest) >= 40_000
    gone = len(whole) - len(b"begun\n" + rest)
    assert said == [f"{gone} bytes of the output are not kept any more."]
