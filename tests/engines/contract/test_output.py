"""Output is kept byte for byte, both streams in order, with a time for each line."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuro.engines.base import RunNotFound, RunRef
from tests.engines.harness import PATIENCE, EngineKind, Has, Runs, needs, spec


@needs(Has.PROGRAMS)
async def test_every_byte_is_kept(runs: Runs) -> None:
    script = "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 4096)"

    done = await runs.run("python3", "-c", script)

    assert done.output == bytes(range(256)) * 4096


@needs(Has.PROGRAMS)
async def test_errors_and_results_keep_their_order(runs: Runs) -> None:
    done = await runs.shell("for i in 1 2 3 4 5 6; do echo out $i; echo err $i >&2; done")

    assert done.lines == [f"{stream} {i}" for i in range(1, 7) for stream in ("out", "err")]


async def test_output_without_a_newline_at_its_end_is_kept(runs: Runs) -> None:
    assert (await runs.run("printf", "no newline")).output == b"no newline"


@needs(Has.PROGRAMS)
async def test_what_children_wrote_last_is_there_at_the_exit(runs: Runs) -> None:
    done = await runs.shell("(echo from a child; seq 100000) & wait")

    assert len(done.lines) == 100_001


async def test_following_delivers_what_comes_while_it_comes(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "echo one; sleep 60")

    assert await runs.says(ref.job_id, b"one\n") == b"one\n"


async def test_following_ends_with_the_run(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo one; sleep 0.2; echo two")
    await runs.engine.start(begun)

    assert await runs.output(begun.job_id, follow=True) == b"one\ntwo\n"


async def test_several_followers_all_get_everything(runs: Runs) -> None:
    begun = spec("sh", "-c", "seq 50000; sleep 0.1; seq 50000")
    await runs.engine.start(begun)

    outputs = await asyncio.gather(*(runs.output(begun.job_id, follow=True) for _ in range(4)))

    expected = "".join(f"{i}\n" for i in range(1, 50001)).encode() * 2
    assert all(output == expected for output in outputs)


@needs(Has.PROGRAMS)
async def test_chunks_are_bounded(runs: Runs) -> None:
    done = await runs.shell("head -c 3000000 /dev/zero")

    chunks = [chunk.data async for chunk in runs.engine.logs(done.ref.job_id)]

    assert max(map(len, chunks)) <= 256 << 10
    assert sum(map(len, chunks)) == 3_000_000


async def test_without_following_the_log_ends_where_it_is_now(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "echo one; sleep 60")
    await runs.says(ref.job_id, b"one")

    assert await runs.output(ref.job_id, follow=False) == b"one\n"


async def test_the_log_of_an_unknown_job_is_not_found(runs: Runs) -> None:
    with pytest.raises(RunNotFound):
        await runs.output("job-unknown")


async def test_each_line_can_have_its_time(runs: Runs) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=5)
    done = await runs.shell("echo one; sleep 0.3; printf 'two\\nthree'")

    text = await runs.output(done.ref.job_id, timestamps=True)

    lines = [line.split(b" ", 1) for line in text.split(b"\n")]
    assert [line[1] for line in lines] == [b"one", b"two", b"three"]
    pattern = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")
    assert all(pattern.fullmatch(line[0]) for line in lines)
    times = [datetime.fromisoformat(f"{line[0][:26].decode()}+00:00") for line in lines]
    assert before <= times[0] <= times[1] <= times[2] <= datetime.now(UTC)
    assert times[1] - times[0] >= timedelta(seconds=0.25)


async def test_a_line_that_comes_in_pieces_has_one_time(runs: Runs) -> None:
    done = await runs.shell("printf a; sleep 0.1; printf 'b\\rc'; sleep 0.1; echo d")

    text = await runs.output(done.ref.job_id, timestamps=True)

    assert text.split(b" ", 1)[1] == b"ab\rcd\n"


async def test_since_leaves_out_what_came_before(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo one; sleep 0.5; echo two")
    await runs.engine.start(begun)
    await runs.says(begun.job_id, b"one")
    now = datetime.now(UTC) + timedelta(milliseconds=50)
    await runs.exited(RunRef(begun.job_id))

    assert await runs.output(begun.job_id, since=now) == b"two\n"
    assert await runs.output(begun.job_id, since=now - timedelta(hours=1)) == b"one\ntwo\n"
    assert await runs.output(begun.job_id, since=now + timedelta(hours=1)) == b""


async def test_since_in_the_future_follows_nothing_but_the_new(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo one; sleep 0.3; echo two")
    await runs.engine.start(begun)
    await runs.says(begun.job_id, b"one")

    later = datetime.now(UTC) + timedelta(hours=1)

    assert await runs.output(begun.job_id, since=later, follow=True) in (b"", b"two\n")


async def test_the_log_goes_on_across_the_runs_of_a_job(runs: Runs) -> None:
    first = await runs.shell("echo first", job_id="job-again")
    second = await runs.shell("echo second", job_id="job-again", run=1)

    assert first.output == b"first\n"
    assert second.output == b"first\nsecond\n"


async def test_the_exit_says_how_large_the_log_is(runs: Runs) -> None:
    await runs.shell("echo first", job_id="job-size")
    second = await runs.shell("echo second", job_id="job-size", run=1)

    assert second.exited.output_bytes == len(b"first\nsecond\n")


@needs(Has.PROGRAMS)
async def test_a_reader_that_comes_back_goes_on_where_it_was(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo one; sleep 0.3; echo two; sleep 0.3; echo three")
    await runs.engine.start(begun)
    await runs.says(begun.job_id, b"one\n")

    for offset in (0, 1, 4, 6, 8, 14):
        log = [chunk async for chunk in runs.engine.logs(begun.job_id, offset=offset)]

        assert b"".join(chunk.data for chunk in log) == b"one\ntwo\nthree\n"[offset:]
        places = [offset, *(chunk.end for chunk in log)]
        assert [chunk.start for chunk in log] == places[:-1]
        assert places[-1] == 14


async def test_offsets_go_on_across_the_runs_of_a_job(runs: Runs) -> None:
    await runs.shell("echo first", job_id="job-offsets")
    await runs.shell("echo second", job_id="job-offsets", run=1)

    extent = await runs.engine.log_extent("job-offsets")

    assert (extent.first, extent.end) == (0, len(b"first\nsecond\n"))
    assert await runs.output("job-offsets", offset=8) == b"cond\n"


async def test_the_extent_of_an_unknown_log_is_not_found(runs: Runs) -> None:
    with pytest.raises(RunNotFound):
        await runs.engine.log_extent("job-unknown")


async def test_a_line_that_is_begun_in_its_middle_has_its_time(runs: Runs) -> None:
    done = await runs.shell("echo one; echo two")

    text = await runs.output(done.ref.job_id, offset=1, timestamps=True)

    assert [line.partition(b" ")[2] for line in text.splitlines()] == [b"ne", b"two"]


@needs(Has.LOG_LIMIT)
async def test_what_was_dropped_is_told_exactly(kind: EngineKind, folder: Path) -> None:
    engine = kind.make_small(folder, 40_000)
    await engine.open()
    await engine.adopt([])
    runs = Runs(engine)
    try:
        ref = await runs.start("sh", "-c", "seq 2000; sleep 0.2; seq 30000; sleep 600")
        await runs.says(ref.job_id, b"\n2000\n")
        whole = b"".join(
            b"%d\n" % number for last in (2000, 30000) for number in range(1, last + 1)
        )
        async with asyncio.timeout(PATIENCE):
            while (extent := await engine.log_extent(ref.job_id)).end < len(whole):
                await asyncio.sleep(0.01)

        # One that had read a little, and one that had read nearly all.
        for offset in (100, len(whole) - 100):
            log = [chunk async for chunk in engine.logs(ref.job_id, offset=offset, follow=False)]

            assert log[0].start == max(offset, extent.first)
            assert log[-1].end == len(whole)
            assert all(chunk.data == whole[chunk.start : chunk.end] for chunk in log)
        assert 20_000 <= extent.end - extent.first <= 60_000
    finally:
        await runs.stop_all()
        await runs.close()


@pytest.mark.slow
@needs(Has.PROGRAMS)
async def test_two_hundred_megabytes_are_followed_without_a_loss(runs: Runs) -> None:
    begun = spec("sh", "-c", "head -c 209715200 /dev/zero | tr '\\0' 'x'; echo end")
    await runs.engine.start(begun)

    size, last = 0, b""
    async with asyncio.timeout(PATIENCE * 3), contextlib.aclosing(_log(runs, begun.job_id)) as log:
        async for data in log:
            size += len(data)
            last = (last + data)[-5:]

    assert size == 209_715_204
    assert last == b"xend\n"


async def _log(runs: Runs, job_id: str):  # type: ignore[no-untyped-def]
    async for chunk in runs.engine.logs(job_id):
        yield chunk.data
