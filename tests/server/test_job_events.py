"""The stream of what becomes of jobs: complete, in order, at once, and never too much."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from msgspec.structs import replace

from neuro.client import Client
from neuro.client.transport import ServerUnreachable
from neuro.domain.jobs import (
    Container,
    JobEvent,
    JobEventFilter,
    JobState,
    JobStatus,
    Priority,
    Reason,
    Resources,
)
from neuro.domain.names import new_job_id
from neuro.domain.resources import GIB, Amount
from neuro.server.access.grants import Visibility
from neuro.server.jobs.board import Board
from neuro.server.jobs.events import JobEvents, Wanted
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord, Specification
from tests.server.jobs import finished, running, submit
from tests.server.nodes import one_node
from tests.server_process import running_server

LONG = 1000.0


@pytest.fixture
def tag() -> str:
    return f"bake_id:{uuid4()}"


async def until_synced(events: AsyncGenerator[JobEvent]) -> tuple[list[JobState], str]:
    """The states that a stream begins with, and the cursor behind them."""
    states = []
    async for event in events:
        if event.synced:
            return states, event.cursor
        assert event.job is not None
        states.append(event.job)
    raise AssertionError("the stream ended before it was synced")


async def until_over(events: AsyncGenerator[JobEvent], count: int = 1) -> list[JobEvent]:
    """Events up to the end of so many jobs."""
    seen = []
    async for event in events:
        if event.job is None:
            continue
        seen.append(event)
        count -= event.job.status.is_finished
        if count == 0:
            return seen
    raise AssertionError("the stream ended before the jobs did")


# The whole way: a real server, a real client.


async def test_a_jobs_life_is_told_step_by_step(client: Client, tag: str) -> None:
    async with aclosing(client.jobs.events(tags=[tag])) as events:
        assert (await until_synced(events))[0] == []
        job = await submit(client, "sh -c 'echo 12345; exit 3'", tags=[tag, "other"])
        seen = await until_over(events)

    states = [event.job for event in seen if event.job]
    assert [(state.status.value, state.reason) for state in states] == [
        ("pending", "Creating"),
        ("pending", "Scheduling"),
        ("running", None),
        ("failed", "Error"),
    ]
    last = states[-1]
    shown = await client.jobs.get(job.id)
    assert {state.id for state in states} == {job.id}
    assert (last.exit_code, last.log_bytes) == (3, 6)
    assert last.run_time_seconds == shown.history.run_time_seconds
    assert (last.started_at, last.finished_at) == (
        shown.history.started_at,
        shown.history.finished_at,
    )
    assert set(last.tags) == {tag, "other"}
    assert states[2].log_bytes is None
    numbers = [int(event.cursor.partition("-")[2]) for event in seen]
    assert numbers == sorted(set(numbers))


async def test_a_silent_job_is_known_to_have_printed_nothing(client: Client, tag: str) -> None:
    await finished(client, await submit(client, "true", tags=[tag]))

    async with aclosing(client.jobs.events(tags=[tag])) as events:
        (state,), _ = await until_synced(events)

    assert (state.status, state.log_bytes, state.exit_code) == (JobStatus.SUCCEEDED, 0, 0)


async def test_of_jobs_by_their_ids_only_these_are_told(
    client: Client, alice: Client, tag: str
) -> None:
    over = await finished(client, await submit(client, "true", tags=[tag]))
    await finished(client, await submit(client, "true", tags=[tag]))
    job = await running(client, "sleep 1000")
    ids = [job.id, over.id, new_job_id(), "no id", job.id]

    async with aclosing(client.jobs.events(ids=ids)) as events:
        before, cursor = await until_synced(events)
        await client.jobs.kill((await running(client, "sleep 1000", tags=[tag])).id)
        await client.jobs.kill(job.id)
        seen = await until_over(events)
    async with aclosing(client.jobs.events(ids=ids, tags=[tag])) as events:
        tagged, _ = await until_synced(events)
    async with aclosing(client.jobs.events(ids=ids, after=cursor)) as events:
        missed, _ = await until_synced(events)
    async with aclosing(alice.jobs.events(ids=ids)) as events:
        alices, _ = await until_synced(events)

    assert {state.id for state in before} == {job.id, over.id}
    assert {event.job.id for event in seen if event.job} == {job.id}
    assert [state.id for state in tagged] == [over.id]
    assert {state.id for state in missed} == {job.id}
    assert alices == []


async def test_only_jobs_with_all_tags_are_told(client: Client, tag: str) -> None:
    both = await finished(client, await submit(client, "true", tags=[tag, f"{tag}-task"]))
    await finished(client, await submit(client, "true", tags=[tag]))

    async with aclosing(client.jobs.events(tags=[tag, f"{tag}-task"])) as events:
        before, _ = await until_synced(events)
        await submit(client, "true", tags=[tag])
        second = await submit(client, "true", tags=[f"{tag}-task", tag])
        seen = await until_over(events)

    assert [state.id for state in before] == [both.id]
    assert {event.job.id for event in seen if event.job} == {second.id}


async def test_jobs_of_others_are_invisible(client: Client, alice: Client, tag: str) -> None:
    mine = await running(client, "sleep 1000", tags=[tag])

    async with aclosing(alice.jobs.events(tags=[tag])) as events:
        assert (await until_synced(events))[0] == []
        await client.jobs.kill(mine.id)
        await finished(client, mine)
        hers = await submit(alice, "true", tags=[tag])
        seen = await until_over(events)
    async with aclosing(client.jobs.events(tags=[tag], owner=["alice"])) as events:
        of_alice, _ = await until_synced(events)

    assert {event.job.id for event in seen if event.job} == {hers.id}
    assert [state.id for state in of_alice] == [hers.id]


async def test_who_comes_back_is_told_only_what_changed(client: Client, tag: str) -> None:
    old = await finished(client, await submit(client, "true", tags=[tag]))
    going = await running(client, "sleep 1000", tags=[tag])
    async with aclosing(client.jobs.events(tags=[tag])) as events:
        states, cursor = await until_synced(events)
    await client.jobs.kill(going.id)
    await finished(client, going)

    async with aclosing(client.jobs.events(tags=[tag], after=cursor)) as events:
        missed, newer = await until_synced(events)
    async with aclosing(client.jobs.events(tags=[tag], after=newer)) as events:
        nothing, _ = await until_synced(events)

    assert {state.id for state in states} == {old.id, going.id}
    assert [(state.id, state.status) for state in missed] == [(going.id, JobStatus.CANCELLED)]
    assert nothing == []


async def test_nothing_is_missed_across_a_killed_server(tmp_path: Path, tag: str) -> None:
    with running_server(tmp_path / "data") as server:
        async with Client.connect(server.url, server.token) as client:
            over = await finished(client, await submit(client, "false", tags=[tag]))
            gate = {
                "src_storage_uri": f"storage://default/{server.user}/gate",
                "dst_path": "/gate",
                "read_only": False,
            }
            wait = "while [ ! -e /gate/open ]; do sleep 0.02; done"
            ends = await running(client, wait, tags=[tag], volumes=[gate])
            events = client.jobs.events(tags=[tag])
            _, cursor = await until_synced(events)

            server.kill()

            with pytest.raises(ServerUnreachable):
                await anext(events)
        (server.data_dir / "storage" / server.user / "gate" / "open").touch()
        server.start()
        async with (
            Client.connect(server.url, server.token) as client,
            aclosing(client.jobs.events(tags=[tag], after=cursor)) as events,
        ):
            states, newer = await until_synced(events)
            unfinished = [state.id for state in states if not state.status.is_finished]
            seen = await until_over(events) if unfinished else []

    newest = {state.id: state.status for state in states}
    newest |= {event.job.id: event.job.status for event in seen if event.job}
    assert newest == {over.id: JobStatus.FAILED, ends.id: JobStatus.SUCCEEDED}
    assert newer.partition("-")[0] != cursor.partition("-")[0]


async def test_a_blocking_client_reads_them_too(client: Client, tag: str) -> None:
    job = await finished(client, await submit(client, "true", tags=[tag]))
    token = await client.users.create_token(client.user, label="blocking")

    def read() -> list[JobEvent]:
        async def first(count: int) -> list[JobEvent]:
            async with Client.blocking(client.transport.url, token.token) as blocking:
                events = blocking.jobs.events(tags=[tag])
                return [await anext(events) for _ in range(count)]

        from neuro.client.blocking import run

        return run(first(2))

    state, synced = await asyncio.to_thread(read)

    assert state.job is not None
    assert (state.job.id, state.cursor) == (job.id, "")
    assert synced.synced


async def test_a_dead_connection_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuro.client.jobs.SILENCE_SECONDS", 0.05)

    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        line = b'{"cursor":"a-1","synced":true}\n'
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"%x\r\n%s\r\n" % (len(line), line))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(fall_silent, "127.0.0.1")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    async with Client.connect(url, None, timeout=LONG) as client:
        events = client.jobs.events()
        assert (await anext(events)).cursor == "a-1"
        with pytest.raises(ServerUnreachable):
            await anext(events)
    server.close()


# The events of jobs alone: what a whole server would need minutes or thousands of jobs for.


def record(*tags: str, owner: str = "alice", name: str | None = None) -> JobRecord:
    now = datetime.now(UTC)
    made = JobRecord(
        id=new_job_id(),
        owner=owner,
        name=name,
        cluster="default",
        engine="sandbox",
        priority=Priority.NORMAL,
        created_at=now,
        specification=Specification(
            container=Container(
                image="ubuntu:latest",
                resources=Resources(cpu=1, memory=GIB, memory_mb=1024, shm=False),
            ),
            amount=Amount(cpu=1, memory=GIB),
            tags=list(tags),
        ),
    )
    return made.stepped(Reason.CREATING, now)


def begins(board: Board, record: JobRecord) -> JobRecord:
    began = replace(record, phase=Phase.RUNNING).stepped(None, datetime.now(UTC))
    board.changed(began)
    return began


async def no_records() -> AsyncGenerator[JobRecord]:
    for record in ():
        yield record


def watched(
    changes: JobEvents,
    *,
    after: str | None = None,
    visible: Visibility | None = None,
    **query: list[str],
) -> AsyncGenerator[bytes]:
    wanted = Wanted.of(visible or Visibility(everything=True), JobEventFilter(**query))
    return changes.watch(wanted, after, no_records)


def events_in(block: bytes) -> list[JobEvent]:
    return [msgspec.json.decode(line, type=JobEvent) for line in block.splitlines()]


@pytest.fixture
def board() -> Board:
    return Board({"sandbox": one_node(Amount(cpu=1000, memory=1000 * GIB))})


async def test_a_change_is_told_in_the_same_moment(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    async with aclosing(watched(changes)) as blocks:
        await anext(blocks)
        told = asyncio.ensure_future(anext(blocks))
        await asyncio.sleep(0)  # it waits now

        board.changed(record())

        for _ in range(5):  # turns of the loop, no time
            await asyncio.sleep(0)
        assert told.done()


async def test_a_quiet_stream_gives_a_sign_of_life_with_a_cursor(board: Board) -> None:
    changes = JobEvents(board, heartbeat=0.01)
    async with aclosing(watched(changes, tag=["mine"])) as blocks:
        (synced,) = events_in(await anext(blocks))
        board.changed(record("others"))
        (beat,) = events_in(await anext(blocks))

    assert (beat.job, beat.synced) == (None, False)
    assert beat.cursor != synced.cursor
    async with aclosing(watched(changes, after=beat.cursor)) as blocks:
        assert [event.synced for event in events_in(await anext(blocks))] == [True]


async def test_a_slow_reader_gets_the_newest_state_of_each_job(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    first, second = record(), record()
    async with aclosing(watched(changes)) as blocks:
        await anext(blocks)
        for job in (first, second):
            board.changed(job)
            begins(board, job)
        board.changed(first.ended(JobStatus.SUCCEEDED, None, datetime.now(UTC)))
        events = events_in(await anext(blocks))

    told = [(event.job.id, event.job.status) for event in events if event.job]
    assert told == [(second.id, JobStatus.RUNNING), (first.id, JobStatus.SUCCEEDED)]


async def test_a_reader_that_is_too_slow_is_sent_away_and_comes_back(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG, max_behind=10)
    jobs = [record() for _ in range(11)]
    async with aclosing(watched(changes)) as blocks:
        (synced,) = events_in(await anext(blocks))
        for job in jobs:
            board.changed(job)
        assert [block async for block in blocks] == []

    async with aclosing(watched(changes, after=synced.cursor)) as blocks:
        missed = events_in(await anext(blocks))

    assert [event.job.id for event in missed if event.job] == [job.id for job in jobs]


@pytest.mark.parametrize("cursor", ["", "nonsense", "00000000-1", "-", "99"])
async def test_an_unknown_cursor_brings_the_whole_state(board: Board, cursor: str) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    job = record()

    async def records() -> AsyncGenerator[JobRecord]:
        yield job

    wanted = Wanted(Visibility(everything=True))
    async with aclosing(changes.watch(wanted, cursor, records)) as blocks:
        (state,) = events_in(await anext(blocks))

    assert state.job is not None
    assert (state.job.id, state.cursor) == (job.id, "")


async def test_a_cursor_that_is_too_old_brings_the_whole_state(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG, kept_changes=3)
    async with aclosing(watched(changes)) as blocks:
        (old,) = events_in(await anext(blocks))
    jobs = [record() for _ in range(4)]
    for job in jobs:
        board.changed(job)

    async def records() -> AsyncGenerator[JobRecord]:
        for job in jobs:
            yield job

    wanted = Wanted(Visibility(everything=True))
    async with aclosing(changes.watch(wanted, old.cursor, records)) as blocks:
        whole = events_in(await anext(blocks))
        (synced,) = events_in(await anext(blocks))
    begins(board, jobs[0])
    async with aclosing(changes.watch(wanted, synced.cursor, records)) as blocks:
        changed = events_in(await anext(blocks))

    assert [event.job.id for event in whole if event.job] == [job.id for job in jobs]
    assert [event.job.id for event in changed if event.job] == [jobs[0].id]


async def test_what_changes_while_the_state_is_read_is_told_after_it(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    job = record()

    async def records() -> AsyncGenerator[JobRecord]:
        yield job
        begins(board, job)

    wanted = Wanted(Visibility(everything=True))
    async with aclosing(changes.watch(wanted, None, records)) as blocks:
        seen = [event for _ in range(3) for event in events_in(await anext(blocks))]

    assert [event.job.status if event.job else "synced" for event in seen] == [
        JobStatus.PENDING,
        "synced",
        JobStatus.RUNNING,
    ]


async def test_a_single_job_can_be_shown_to_others(board: Board) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    shown, named, hidden = record(), record(name="shown"), record(name="hidden")
    singles = frozenset({("alice", shown.id), ("alice", "shown")})
    async with aclosing(watched(changes, visible=Visibility(singles=singles))) as blocks:
        await anext(blocks)
        for job in (hidden, shown, named):
            board.changed(job)
        events = events_in(await anext(blocks))

    assert [event.job.id for event in events if event.job] == [shown.id, named.id]


@pytest.mark.parametrize(
    ("reason", "run", "log_bytes", "told"),
    [
        (Reason.COMPLETED, 0, 0, 0),
        (Reason.COMPLETED, 0, 7, 7),
        (Reason.NOT_FOUND, 0, 0, None),
        (Reason.NOT_FOUND, 0, 7, 7),
        (Reason.CANNOT_RUN, 0, 0, 0),
        (Reason.CANNOT_RUN, 1, 0, None),
    ],
)
async def test_output_that_is_not_known_to_be_empty_is_not_called_so(
    board: Board, reason: str, run: int, log_bytes: int, told: int | None
) -> None:
    changes = JobEvents(board, heartbeat=LONG)
    job = replace(record(), run=run, log_bytes=log_bytes)
    async with aclosing(watched(changes)) as blocks:
        await anext(blocks)
        board.changed(job.ended(JobStatus.FAILED, reason, datetime.now(UTC)))
        (event,) = events_in(await anext(blocks))

    assert event.job is not None
    assert event.job.log_bytes == told
