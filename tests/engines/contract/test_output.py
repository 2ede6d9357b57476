"""Output is kept byte for byte, both streams in order, with a time for each line."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from neuro.engines.base import RunNotFound, RunRef
from tests.engines.harness import PATIENCE, Has, Runs, needs, spec


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

    chunks = [data async for data in runs.engine.logs(done.ref.job_id)]

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
@pytest.mark.slow
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
    async for data in runs.engine.logs(job_id):
        yield data
