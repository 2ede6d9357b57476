"""What is done for an attempt, whose turn it is, and when schedules are due: values in and out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from neuro.domain.bakes import CatchUp, TaskStatus
from neuro.domain.errors import InvalidInput
from neuro.server.schedules.times import (
    check_timing,
    due_between,
    next_after,
    to_start,
)
from neuro.server.supervision.decisions import (
    CleanUp,
    Decision,
    Executor,
    Facts,
    Finish,
    Limits,
    StartMainJob,
    Wait,
    decide,
)

RUNNING, PENDING = TaskStatus.RUNNING, TaskStatus.PENDING
FAILED, CANCELLED = TaskStatus.FAILED, TaskStatus.CANCELLED
TERMINAL, ALIVE, DEAD = Executor.TERMINAL, Executor.ALIVE, Executor.DEAD


@pytest.mark.parametrize(
    ("facts", "decision"),
    [
        # A main job that is alive is left alone, whatever the attempt's result.
        (Facts(RUNNING, ALIVE), Wait()),
        (Facts(PENDING, ALIVE, silent=1e9), Wait()),
        (Facts(CANCELLED, ALIVE), Wait()),
        # One that died has a successor after a pause that grows.
        (Facts(RUNNING, DEAD, deaths=1), Wait(1.0)),
        (Facts(RUNNING, DEAD, deaths=1, dead_for=1.0), StartMainJob()),
        (Facts(RUNNING, DEAD, deaths=4, dead_for=1.0), Wait(7.0)),
        (Facts(RUNNING, DEAD, deaths=19, dead_for=59.0), Wait(1.0)),
        (Facts(RUNNING, DEAD, deaths=19, dead_for=60.0), StartMainJob()),
        # One that the server had to end has it at once, however many died before.
        (Facts(RUNNING, Executor.STRANDED), StartMainJob()),
        (Facts(PENDING, Executor.STRANDED, deaths=20), StartMainJob()),
        (Facts(CANCELLED, Executor.STRANDED), CleanUp()),
        # A terminal's executor is believed in for a while.
        (Facts(RUNNING, TERMINAL, silent=119.0), Wait(1.0)),
        (Facts(PENDING, TERMINAL, silent=120.0), Wait(480.0)),
        # Longer while it waits for a command of its own machine.
        (Facts(RUNNING, TERMINAL, silent=120.0, is_busy_locally=True), Wait(120.0)),
        # What a schedule made has its main job from the server.
        (Facts(PENDING, TERMINAL, is_scheduled=True), StartMainJob()),
        # After the end: what is left over is ended unless somebody may still do it.
        (Facts(CANCELLED, TERMINAL, silent=20.0), Wait(40.0)),
        (Facts(CANCELLED, TERMINAL, silent=60.0), CleanUp()),
        (Facts(CANCELLED, DEAD), CleanUp()),
        (Facts(TaskStatus.SUCCEEDED, TERMINAL, silent=60.0), CleanUp()),
        (Facts(FAILED, TERMINAL, silent=60.0, is_scheduled=True), CleanUp()),
    ],
)
def test_what_is_done_for_an_attempt(facts: Facts, decision: Decision) -> None:
    assert decide(facts, Limits()) == decision


@pytest.mark.parametrize(
    ("facts", "result", "words"),
    [
        (Facts(RUNNING, TERMINAL, silent=120.0), FAILED, "been silent for 2m"),
        (Facts(PENDING, TERMINAL, silent=600.0), FAILED, "It was not begun for 10m"),
        (Facts(RUNNING, DEAD, deaths=20), FAILED, "died 20 times without progress"),
        (Facts(RUNNING, Executor.KILLED_BY_USER), CANCELLED, "killed by its user"),
        (Facts(RUNNING, Executor.OUT_OF_TIME), FAILED, "life span ended"),
    ],
)
def test_when_an_attempt_is_given_up(facts: Facts, result: TaskStatus, words: str) -> None:
    decision = decide(facts, Limits())

    assert isinstance(decision, Finish)
    assert decision.result is result
    assert words in decision.message
    assert "`neuro-flow restart`" in decision.message


BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times_of(cron: str, timezone: str, after: str, count: int) -> list[str]:
    moment = utc(after)
    found = []
    for _ in range(count):
        following = next_after(cron, timezone, moment)
        assert following is not None
        moment = following
        found.append(moment.strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("cron", "timezone", "after", "expected"),
    [
        ("30 6 * * *", "UTC", "2026-05-01T06:30", ["05-02 06:30", "05-03 06:30"]),
        ("30 6 * * *", BERLIN, "2026-05-01T06:30", ["05-02 04:30", "05-03 04:30"]),
        # 2026-03-29 has no 02:30 in Berlin: due when the gap ends, at 03:00 summer time.
        ("30 2 * * *", BERLIN, "2026-03-28T00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        # 2026-10-25 has 02:30 twice: due at the first of them.
        ("30 2 * * *", BERLIN, "2026-10-24T00:00", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        # Every hour is every hour.
        ("0 * * * *", BERLIN, "2026-10-24T23:30", ["10-25 00:00", "10-25 01:00", "10-25 02:00"]),
        ("0 12 L * *", "UTC", "2026-02-01T00:00", ["02-28 12:00", "03-31 12:00"]),
        # Within the hour that comes twice, what is past stays past.
        ("30 2 * * *", BERLIN, "2026-10-25T01:10", ["10-26 01:30"]),
    ],
)
def test_when_a_schedule_is_due(cron: str, timezone: str, after: str, expected: list[str]) -> None:
    assert times_of(cron, timezone, after, len(expected)) == expected


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/15 * * * *", "0 */3 * * *", "15 1,2,3 * * *"])
@pytest.mark.parametrize("timezone", [BERLIN, "Australia/Lord_Howe", "America/New_York", "UTC"])
@pytest.mark.parametrize("day", ["2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24"])
def test_what_was_missed_is_what_would_have_been_next(cron: str, timezone: str, day: str) -> None:
    start = utc(f"{day}T00:00")
    forward: list[datetime] = []
    while (following := next_after(cron, timezone, forward[-1] if forward else start)) is not None:
        if following > start + timedelta(days=3):
            break
        forward.append(following)

    for hours in range(0, 72, 5):
        until = start + timedelta(hours=hours, minutes=20)
        expected = [time for time in forward if time <= until]
        assert due_between(cron, timezone, start, until, 1000) == expected
        assert due_between(cron, timezone, start, until, 3) == expected[-3:]


def test_years_of_downtime_cost_nothing() -> None:
    times = due_between("* * * * *", BERLIN, utc("1990-01-01T00:00"), utc("2026-01-01T00:00"), 100)

    assert len(times) == 100
    assert times[-1] == utc("2026-01-01T00:00")


@pytest.mark.parametrize(
    ("catch_up", "late", "expected"),
    [
        (CatchUp.NONE, timedelta(seconds=5), [3]),
        (CatchUp.NONE, timedelta(minutes=5), []),
        (CatchUp.LAST, timedelta(seconds=5), [3]),
        (CatchUp.LAST, timedelta(days=5), [3]),
        (CatchUp.ALL, timedelta(seconds=5), [1, 2, 3]),
        (CatchUp.ALL, timedelta(days=5), [1, 2, 3]),
    ],
)
def test_what_is_caught_up_on(catch_up: CatchUp, late: timedelta, expected: list[int]) -> None:
    times = [utc(f"2026-05-0{day}T00:00") for day in (1, 2, 3)]

    started = to_start(times, times[-1] + late, catch_up)

    assert [time.day for time in started] == expected
    assert to_start([], times[-1], catch_up) == []


@pytest.mark.parametrize(
    ("cron", "timezone", "words"),
    [
        ("every day", "UTC", "write five fields"),
        ("* * * * * *", "UTC", "write five fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 0 30 2 *", "UTC", "Bad day-of-month"),
        ("0 6 " + "* " * 200, "UTC", "write five fields"),
        ("0 6 * * *", "Berlin", "'Europe/Berlin'"),
        ("0 6 * * *", "../../etc/passwd", "'Europe/Berlin'"),
        ("0 6 * * *", "", "'Europe/Berlin'"),
        ("0 6 * * *", "a\0b", "'Europe/Berlin'"),
    ],
)
def test_what_is_no_time_is_told_with_what_to_write(cron: str, timezone: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        check_timing(cron, timezone, utc("2026-01-01T00:00"))
