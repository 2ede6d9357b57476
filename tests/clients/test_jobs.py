"""Listing, showing, ending and extending jobs (docs/reference/wire-protocol.md#jobs)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.reference_client import ReferenceClient

Named = Callable[[str], str]


@pytest.fixture(scope="module")
def finished(client: ReferenceClient, named: Named) -> tuple[str, str]:
    """Two jobs that are over, the first a success, the second a failure."""
    tag = ["--tag", named("finished")]
    one = client.run(
        "run", *tag, "--name", named("success"), "--description", named("why"), "--tag", "one",
        "ubuntu", "--", "true",
    )  # fmt: skip
    two = client.run("run", *tag, "ubuntu", "--", "sh", "-c", "exit 3", ok=False)
    return one.job_id, two.job_id


def test_ps_shows_what_is_active(client: ReferenceClient, sleeper: str) -> None:
    out = client.run("ps").out

    assert sleeper in out
    assert "running" in out
    assert "sleep 1000" in out


def test_ps_filters_by_everything(
    client: ReferenceClient, named: Named, finished: tuple[str, str]
) -> None:
    one, two = finished
    tag = ["-t", named("finished")]

    def ps(*options: str) -> list[str]:
        return client.run("-q", "ps", *options).lines

    assert ps(*tag) == []
    assert ps("-a", *tag) == [one, two]
    assert ps("-a", *tag, "--recent-first") == [two, one]
    assert ps("-a", *tag, "-t", "one") == [one]
    assert ps("-s", "failed", *tag) == [two]
    assert ps("-s", "failed", "-s", "succeeded", *tag) == [one, two]
    assert ps("-a", "-n", named("success")) == [one]
    assert ps("-a", "-d", named("why")) == [one]
    assert ps("-a", *tag, "-o", client.user, "--since", "1h") == [one, two]
    assert ps("-a", *tag, "-o", "nobody") == []
    assert ps("-a", *tag, "--until", "1h") == []


def test_ps_has_columns_of_ones_own(
    client: ReferenceClient, named: Named, finished: tuple[str, str]
) -> None:
    columns = "id status tags description life_span preset"

    rows = client.run("ps", "-a", "-w", "-t", named("finished"), "--format", columns).lines

    one = next(row.split() for row in rows if finished[0] in row)
    assert one[1] == "succeeded"
    assert one[-3:] == [named("why"), "1d", "cpu-small"]


def test_ps_refuses_a_name_that_cannot_be_one(client: ReferenceClient) -> None:
    outcome = client.run("ps", "-n", "Not-A-Name", ok=False)

    assert outcome.code == 65
    assert "Invalid job name" in outcome.err


def test_status_tells_a_finished_jobs_story(
    client: ReferenceClient, finished: tuple[str, str]
) -> None:
    out = client.run("status", finished[1]).out

    rows = client.status(finished[1])
    assert rows["Status"] == "failed (Error)"
    assert rows["Exit code"] == "3"
    assert rows["Preset"] == "cpu-small"
    assert "Finished" in rows
    steps = out[out.index("Status transitions") :]
    assert [step in steps for step in ("Creating", "Scheduling", "running", "failed")] == [True] * 4


@pytest.mark.parametrize("form", ["{name}", "job:{name}", "job:/{user}/{name}"])
def test_a_job_is_known_by_its_name_and_its_uri(
    client: ReferenceClient, sleeper: str, form: str
) -> None:
    known = form.format(name=sleeper, user=client.user)

    assert client.status(known)["Name"] == sleeper


def test_an_unknown_job_is_said_to_be_unknown(client: ReferenceClient) -> None:
    outcome = client.run("status", "no-such-job", ok=False)

    assert outcome.code == 65
    assert "no such job no-such-job" in outcome.err


def test_several_jobs_are_killed_at_once_and_the_unknown_is_named(
    client: ReferenceClient, named: Named
) -> None:
    by_id = client.submit("ubuntu", "--", "sleep", "1000")
    by_name = client.submit("--name", named("to-kill"), "ubuntu", "--", "sleep", "1000")

    outcome = client.run("kill", by_id, named("to-kill"), "no-such-job", ok=False)

    assert outcome.code == 1
    assert outcome.lines == [by_id, by_name]
    assert "no-such-job" in outcome.err
    for job in (by_id, by_name):
        assert client.status(job)["Status"].startswith("cancelled")


def test_a_job_that_is_over_may_be_killed(
    client: ReferenceClient, finished: tuple[str, str]
) -> None:
    client.run("kill", finished[0])

    assert client.status(finished[0])["Status"].startswith("succeeded")


def test_a_life_span_is_extended(client: ReferenceClient, sleeper: str) -> None:
    before = client.status(sleeper)["Life span"]

    client.run("job", "bump-life-span", sleeper, "1h")

    assert before == "1d"
    assert client.status(sleeper)["Life span"] == "1d1h"


def test_a_jobs_command_line_is_given_back(
    client: ReferenceClient, finished: tuple[str, str], named: Named
) -> None:
    line = client.run("job", "generate-run-command", finished[0]).out

    assert line.startswith("neuro run --preset cpu-small")
    assert f"--name {named('success')}" in line
    assert line.rstrip().endswith("ubuntu:latest true")


def test_a_jobs_page_is_named(client: ReferenceClient, sleeper: str) -> None:
    out = client.run("job", "browse", sleeper).out

    assert f"http://{sleeper}--{client.user}." in out
