"""What a submission comes to: a job, or every reason why not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from neuro.domain.errors import (
    InvalidInput,
    NeverFits,
    NotPermitted,
    NotSupported,
    TooManyRequests,
)
from neuro.domain.images import EXECUTOR_IMAGE
from neuro.domain.jobs import JobRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.uris import ResourceURI
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.jobs.plan import (
    Draft,
    JobLimits,
    Offer,
    Planned,
    Refused,
    crowded,
    crowded_with_controls,
    plan,
)
from neuro.server.jobs.record import to_wire
from neuro.server.jobs.specification import CONTROL_AMOUNT

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PRESETS = [
    Preset(name="small", cpu=1, memory=GIB, engine="here"),
    Preset(name="far", cpu=2, memory=GIB, engine="there"),
    Preset(name="huge", cpu=64, memory=GIB, engine="here"),
]
OFFER = Offer("default", PRESETS, "here", "jobs.example.org", lambda engine: f"http://{engine}")
CAPACITIES = {"here": Amount(cpu=4, memory=8 * GIB), "there": Amount(cpu=4, memory=8 * GIB)}
ALICES = ResourceURI("job", "default", ("alice",))
ALICE = Identity("alice", Grants.of([Permission(uri=ALICES, action=Action.WRITE)]), "t")


def planned(*, control: bool = False, **changes: object) -> Planned | Refused:
    request = msgspec.convert({"image": "ubuntu", **changes}, JobRequest)
    return plan(Draft(request, control, "job-1", NOW), ALICE, OFFER, CAPACITIES)


def test_every_reason_is_told_at_once() -> None:
    refused = planned(
        name="X",
        tags=["a b"],
        http={"port": 70000},
        volumes=[
            {"src_storage_uri": "storage://other/x", "dst_path": "/data"},
            {"src_storage_uri": "storage://default/bob/x", "dst_path": "data"},
        ],
        preset_name="none",
        secret_env={"A": "secret:x"},
    )

    assert isinstance(refused, Refused)
    error = refused.error()
    assert isinstance(error, InvalidInput)  # the kind of the first
    for words in (
        "Invalid job name 'X'",
        "Invalid tag 'a b'",
        "HTTP port 70000",
        "'storage://other/x' is not in cluster",
        "The mount path 'data' must be absolute",
        "'secret:x' is not a full URI",
        "'storage://default/bob/x' was not found",
        "Preset 'none' is unknown",
    ):
        assert words in error.message
    assert len(refused.reasons) == 8


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"name": "X"}, InvalidInput),
        ({"disk_volumes": [{"src_disk_uri": "disk:x", "dst_path": "/d"}]}, NotSupported),
        ({"preset_name": "huge"}, NeverFits),
        ({"image": None}, InvalidInput),
    ],
)
def test_a_single_reason_is_the_error_itself(changes: dict[str, object], kind: type) -> None:
    refused = planned(**changes)

    assert isinstance(refused, Refused)
    assert refused.error() is refused.reasons[0]
    assert type(refused.error()) is kind


def test_a_caller_who_may_not_submit_is_told_so() -> None:
    reader = Grants.of([Permission(uri=ALICES, action=Action.READ)])
    draft = Draft(JobRequest(image="ubuntu"), False, "job-1", NOW)

    refused = plan(draft, Identity("alice", reader, "t"), OFFER, CAPACITIES)

    assert isinstance(refused, Refused)
    assert isinstance(refused.error(), NotPermitted)


def test_a_preset_says_which_engine_runs_the_job() -> None:
    far, plain = planned(preset_name="far"), planned()

    assert isinstance(far, Planned)
    assert isinstance(plain, Planned)
    assert (far.record.engine, plain.record.engine) == ("there", "here")


def test_only_who_starts_a_job_says_that_it_is_a_control_job() -> None:
    command = {"image": EXECUTOR_IMAGE, "command": "neuro-flow execute bake-1", "pass_config": True}
    like_all, control = planned(**command), planned(control=True, **command)

    assert isinstance(like_all, Planned)
    assert isinstance(control, Planned)
    assert not like_all.record.specification.control
    assert control.record.specification.control
    assert control.record.specification.amount == CONTROL_AMOUNT
    assert control.record.specification.api_url == "http://here"


def test_the_addresses_of_a_job_are_those_of_the_server_that_is_asked() -> None:
    job = planned(name="notebook", http={"port": 80})
    assert isinstance(job, Planned)

    here = to_wire(job.record, NOW, jobs_domain="old.example.org")
    there = to_wire(job.record, NOW, jobs_domain="new.example.org")

    assert here.http_url == "http://job-1.jobs.old.example.org"
    assert there.http_url == "http://job-1.jobs.new.example.org"
    assert there.http_url_named == "http://notebook--alice.jobs.new.example.org"
    assert "example.org" not in msgspec.json.encode(job.record.specification).decode()


def test_a_job_without_a_port_has_no_address() -> None:
    job = planned(name="batch")
    assert isinstance(job, Planned)

    shown = to_wire(job.record, NOW, jobs_domain="example.org")

    assert (shown.http_url, shown.http_url_named) == (None, None)


@pytest.mark.parametrize(
    ("credits_per_hour", "total"), [("0", "0.0000"), ("0.0", "0.0000"), ("12.5", "6.2500")]
)
def test_a_job_costs_what_its_preset_does_for_as_long_as_it_runs(
    credits_per_hour: str, total: str
) -> None:
    job = planned()
    assert isinstance(job, Planned)
    priced = replace(job.record.specification, credits_per_hour=credits_per_hour)
    ran = replace(job.record, specification=priced, started_at=NOW)

    shown = to_wire(ran, NOW + timedelta(minutes=30), jobs_domain="example.org")

    assert shown.total_price_credits == total


@pytest.mark.parametrize(
    ("rule", "every", "of_owner", "words"),
    [
        (crowded, 149_999, 4, None),
        (crowded, 150_000, 0, "150,000 jobs are active already"),
        (crowded, 5, 5, "5 jobs of 'alice' are active already"),
        (crowded_with_controls, 2, 1, None),
        (crowded_with_controls, 3, 0, "3 bakes are driven already"),
        (crowded_with_controls, 2, 2, "2 bakes of 'alice' are driven already"),
    ],
)
def test_one_job_more_is_refused_where_there_are_too_many(
    rule: Callable[[int, int, JobLimits, str], TooManyRequests | None],
    every: int,
    of_owner: int,
    words: str | None,
) -> None:
    limits = JobLimits(controls=3, controls_per_owner=2, active_per_owner=5)

    crowd = rule(every, of_owner, limits, "alice")

    assert (crowd is None) == (words is None)
    assert words is None or (crowd is not None and words in crowd.message)
