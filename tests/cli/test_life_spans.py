"""How long jobs may run and wait: what is taken, what is refused, and how a cut-off job ends."""

from __future__ import annotations

import pytest

from neuro.cli.job.exit_code import job_exit_code
from neuro.cli.render.job_status import status_rows
from neuro.domain.errors import InvalidInput
from neuro.domain.jobs import JobStatus
from neuro.domain.life_spans import check_schedule_timeout, life_span_minutes
from tests.cli.jobs import make_job
from tests.cli.platform import Home

DAY = 86400.0


@pytest.mark.parametrize(
    ("seconds", "minutes"),
    [(0, None), (60, 1), (61, 2), (100 * 366 * DAY, 52_704_000), (100_500 * DAY, 144_720_000)],
)
def test_a_life_span_is_whole_minutes(seconds: float, minutes: int | None) -> None:
    assert life_span_minutes(seconds) == minutes


@pytest.mark.parametrize("seconds", [5, 59.9, 366_001 * DAY, float("inf"), float("nan")])
def test_a_life_span_that_no_job_can_have_is_refused_with_the_bound(seconds: float) -> None:
    with pytest.raises(InvalidInput, match=r"1m or more|366000d"):
        life_span_minutes(seconds)


@pytest.mark.parametrize("seconds", [0, -1, 366_001 * DAY])
def test_a_wait_has_bounds_on_both_sides(seconds: float) -> None:
    with pytest.raises(InvalidInput, match=r"more than 0 seconds|366000d"):
        check_schedule_timeout(seconds)


@pytest.mark.parametrize(
    ("reason", "code", "exit_code"),
    [
        ("LifeSpanEnded", 0, 124),
        ("LifeSpanEnded", None, 124),
        ("LifeSpanEnded", 143, 143),
        ("UserRequested", 0, 130),
    ],
)
def test_a_job_that_was_cut_off_does_not_end_well(
    reason: str, code: int | None, exit_code: int
) -> None:
    job = make_job(status=JobStatus.CANCELLED, reason=reason, history={"exit_code": code})

    assert job_exit_code(job) == exit_code


def test_the_status_of_a_job_that_was_cut_off_tells_the_exit_code_that_run_had() -> None:
    def told(code: int) -> list[str]:
        job = make_job(
            status=JobStatus.CANCELLED, reason="LifeSpanEnded", history={"exit_code": code}
        )
        rows = status_rows(job, user="anna")
        return [row.value for row in rows if row.label == "Exit code"]

    assert told(0) == ["124 (its command ended with 0)"]
    assert told(143) == ["143"]


def test_a_start_that_was_waited_for_in_vain_is_no_success(person: Home) -> None:
    everything = ("--preset", "cpu-large")
    person.ok("-q", "run", "--detach", *everything, "ubuntu", "sleep", "100")

    with person.start("run", "--detach", "--name", "in-vain", *everything, "ubuntu", "true") as it:
        it.until("Waits for ")
        person.ok("kill", "in-vain")
        it.until("cancelled (UserRequested)")
        assert it.end() == 130


def test_life_spans_are_kept_as_they_are_written_or_refused(person: Home) -> None:
    refused = person.run("run", "--life-span", "5s", "ubuntu", "true")
    rounded = person.run("run", "--life-span", "90s", "ubuntu", "true")
    waiting = person.run("run", "--schedule-timeout", "99999999d", "ubuntu", "true")
    endless = person.run("run", "--life-span", "99999999999d", "ubuntu", "true")

    assert (refused.returncode, waiting.returncode, endless.returncode) == (127, 127, 127)
    assert "life span of 5s is too short: give 1m or more" in refused.stderr
    assert "of 99999999d is too long: give at most 366000d" in waiting.stderr
    assert "too long" in endless.stderr
    assert "90s is rounded up to 1m30s" not in rounded.stderr
    assert "90s is rounded up to 2m" in rounded.stderr
    assert person.run("run", "--life-span", "100500d", "ubuntu", "true").returncode == 0


def test_a_signal_is_named(person: Home) -> None:
    done = person.run("run", "ubuntu", "--", "sh", "-c", "kill -SEGV $$")

    assert done.returncode == 139
    assert "killed by SIGSEGV" in done.stderr
