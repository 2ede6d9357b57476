"""What the server does unasked: it says so when it fails, goes on, or ends the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog

from neuro.domain.errors import Unavailable
from neuro.server import background as module
from neuro.server.background import Background


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.001)


class Ends:
    """Counts how often the server was to end."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest_asyncio.fixture
async def background(ends: Ends) -> AsyncIterator[Background]:
    background = Background(ends)
    yield background
    await background.close()


async def until(holds: object) -> None:
    async with asyncio.timeout(10):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.001)


async def test_a_task_that_fails_says_so_and_begins_again(
    background: Background, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RECOVERED_SECONDS", 0.05)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise KeyError("what nobody expected")
        await asyncio.Event().wait()

    with structlog.testing.capture_logs() as logged:
        background.keep("watch", work)
        await until(lambda: background.troubles)
        assert background.troubles == [
            "Its watch failed, and begins again; the server's log says why."
        ]
        await until(lambda: not background.troubles)

    assert (begun, ends.count) == (2, 0)
    (line,) = logged
    assert (line["event"], line["task"]) == ("a background task failed", "watch")
    assert isinstance(line["exc_info"], KeyError)


async def test_a_task_whose_awaited_work_was_cancelled_begins_again(
    background: Background,
) -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        raise asyncio.CancelledError

    background.keep("watch", work)

    await until(lambda: begun > 2)
    assert background.troubles


async def test_a_task_that_ends_has_failed_too(background: Background) -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1

    with structlog.testing.capture_logs() as logged:
        background.keep("watch", work)
        await until(lambda: begun > 2)

    assert {line["event"] for line in logged} == {"a background task ended"}
    assert background.troubles


async def test_a_vital_task_that_fails_ends_the_server_once(
    background: Background, ends: Ends
) -> None:
    async def work() -> None:
        raise KeyError("what nobody expected")

    background.keep("writer", work, vital=True)

    await until(lambda: ends.count)
    for _ in range(100):
        await asyncio.sleep(0)
    assert ends.count == 1
    assert background.troubles == ["Its writer failed, and the server ends; its log says why."]


async def test_what_is_done_now_and_then_waits_for_the_next_time(background: Background) -> None:
    done = 0

    async def sweep() -> None:
        nonlocal done
        done += 1
        raise Unavailable("The disk is full.")

    with structlog.testing.capture_logs() as logged:
        background.every(0.001, "sweep", sweep)
        await until(lambda: done > 2)

    assert not background.troubles
    assert {(line["event"], line["error"]) for line in logged} == {
        ("a sweep failed", "The disk is full.")
    }


async def test_an_errand_that_fails_is_told_and_no_other_is_hurt(background: Background) -> None:
    errands = background.errands("starts")
    finished = asyncio.Event()

    async def fail() -> None:
        raise KeyError("what nobody expected")

    async def succeed() -> None:
        finished.set()

    with structlog.testing.capture_logs() as logged:
        errands.begin(fail())
        errands.begin(succeed())
        await errands.finish()

    assert finished.is_set()
    assert [(line["event"], line["task"]) for line in logged] == [
        ("a background task failed", "starts")
    ]


async def test_an_errand_is_done_once_the_database_is_back(background: Background) -> None:
    errands = background.errands("starts")
    tries, done = 0, asyncio.Event()

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("The database is away.")
        done.set()

    errands.begin_until_done(work, 0.001)

    await done.wait()
    await errands.finish()
    assert tries == 3


async def test_an_errand_that_cannot_be_done_does_not_hold_up_the_end(
    background: Background,
) -> None:
    errands = background.errands("starts")
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("The database is away.")

    errands.begin_until_done(work, 3600)
    await errands.finish()

    assert tries == 1


async def test_whatever_is_left_ends_with_the_server() -> None:
    background = Background()
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    background.keep("watch", work)
    background.errands("starts").begin(work())
    await asyncio.sleep(0)

    await background.close()

    assert ended == ["work", "work"]
