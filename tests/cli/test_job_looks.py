from __future__ import annotations

from datetime import timedelta

import pytest

from neuro.cli.job.output import Progress, header, steps
from neuro.cli.output import Output
from neuro.cli.render.columns import parse_columns
from neuro.cli.render.job_row import PS_COLUMNS, PS_DEFAULT, View, job_row
from neuro.cli.render.job_status import status_rows
from neuro.cli.render.table import Table
from neuro.cli.render.uris import short_uri
from neuro.domain.jobs import JobStatus, Volume
from tests.cli.jobs import CREATED, JOB_ID, make_job

VIEW = View("anna", CREATED + timedelta(seconds=26))


def status_of(**fields: object) -> list[str]:
    rows = status_rows(make_job(**fields), user="anna")  # type: ignore[arg-type]
    return [row.text(lambda text, _fg: text) for row in rows]


def test_a_list_of_jobs_looks_as_specified() -> None:
    columns = parse_columns(PS_DEFAULT, PS_COLUMNS)
    jobs = [
        make_job(name="job390"),
        make_job(name="his", owner="boris", description=None, tags=["x"]),
    ]
    rows = [job_row(job, columns, VIEW) for job in jobs]
    table = Table([column.look for column in columns])
    table.measure(rows)

    lines = [table.header(), *table.lines(rows)]

    space = " " * 38
    assert lines == [
        f"ID{space}  NAME    STATUS   WHEN            IMAGE   OWNER  CLUSTER  DESCRIPTION",
        f"{JOB_ID}  job390  pending  26 seconds ago  ubuntu  <you>  default",
        f"{JOB_ID}  his     pending  26 seconds ago  ubuntu  boris  default",
    ]


@pytest.mark.parametrize(
    ("status", "history", "said"),
    [
        (JobStatus.PENDING, {}, "26 seconds ago"),
        (JobStatus.RUNNING, {"started_at": CREATED + timedelta(seconds=20)}, "6 seconds ago"),
        (
            JobStatus.FAILED,
            {
                "started_at": CREATED + timedelta(seconds=20),
                "finished_at": CREATED + timedelta(seconds=25),
            },
            "1 second ago",
        ),
    ],
)
def test_when_is_since_when_a_job_is_in_its_status(
    status: JobStatus, history: dict[str, object], said: str
) -> None:
    columns = parse_columns("when", PS_COLUMNS)

    ((line,),) = job_row(make_job(status=status, history=history), columns, VIEW)

    assert line.text == said


def test_iso_dates_replace_the_spoken_ones() -> None:
    columns = parse_columns("created", PS_COLUMNS)

    ((line,),) = job_row(make_job(), columns, VIEW._replace(iso_dates=True))

    assert line.text == "2026-11-21T12:00:00+00:00"


def test_the_first_lines_of_a_run_look_as_specified() -> None:
    job = make_job(name="test", http_url_named="http://test--anna.jobs.example.org")

    assert header(job) == [
        f"Job ID: {JOB_ID}",
        "Status: pending",
        "Name: test",
        "Http URL: http://test--anna.jobs.example.org",
        "Shortcuts:",
        "  neuro status test # check job status",
        "  neuro logs test # monitor job stdout",
        "  neuro top test # display real-time job telemetry",
        "  neuro exec test bash # execute bash shell to the job",
        "  neuro kill test # kill job",
    ]


def test_the_steps_of_a_start_are_told_with_their_reasons() -> None:
    job = make_job(
        status=JobStatus.RUNNING,
        transitions=[
            (JobStatus.PENDING, "Creating"),
            (JobStatus.PENDING, "Scheduling"),
            (JobStatus.RUNNING, None),
        ],
    )

    assert [text for _, text in steps(job)] == [
        "pending Creating",
        "pending Scheduling",
        "running",
    ]


def test_a_waiting_job_says_what_it_waits_for() -> None:
    job = make_job(reason="Scheduling", description="waits for 1 CPU; 2 jobs are ahead")

    assert steps(job)[-1][1] == "pending Scheduling (waits for 1 CPU; 2 jobs are ahead)"


def test_a_status_begins_and_goes_on_as_specified() -> None:
    lines = status_of(
        name="job363",
        status=JobStatus.RUNNING,
        command="sleep infinity",
        history={"started_at": CREATED + timedelta(seconds=4)},
        internal_hostname=f"{JOB_ID}.platform-jobs",
        http_url="http://x.jobs.example.org",
    )

    assert lines[: lines.index("Status transitions:")] == [
        f"Job: {JOB_ID}",
        "Name: job363",
        "Owner: anna",
        "Cluster: default",
        "Status: running",
        "Image: ubuntu",
        "Command: sleep infinity",
        "Resources:",
        "  Memory: 2.0G",
        "  CPU: 1.0",
        "  Additional: Extended SHM space",
        "Preemptible: False",
        "Life span: 1d",
        f"Internal Hostname: {JOB_ID}.platform-jobs",
        "Http URL: http://x.jobs.example.org",
        "Http port: 80",
        "Http authentication: True",
        "Created: 2026-11-21T12:00:00+00:00",
        "Started: 2026-11-21T12:00:04+00:00",
        "Life span ends (approx): 2026-11-22T12:00:04+00:00",
    ]


def test_a_status_shows_mounts_and_variables_when_there_are_any() -> None:
    volume = Volume(src_storage_uri="storage://default/anna/data", dst_path="/mnt")

    lines = status_of(container={"volumes": [volume], "env": {"A": "1"}})

    assert "  /mnt: storage:data READONLY" in lines
    assert "  A=1" in lines


def test_a_failed_job_says_why() -> None:
    lines = status_of(
        status=JobStatus.FAILED,
        reason="OOMKilled",
        description="the memory limit of 2.0G",
        history={"exit_code": 137, "finished_at": CREATED},
    )

    assert "Status: failed (OOMKilled)" in lines
    assert "Exit code: 137" in lines
    assert "Description: the memory limit of 2.0G" in lines


@pytest.mark.parametrize(
    ("uri", "short"),
    [
        ("storage://default/anna/a/b", "storage:a/b"),
        ("storage://default/anna", "storage:"),
        ("storage://default/bob/a", "storage:/bob/a"),
        ("storage://lab/anna/a", "storage://lab/anna/a"),
    ],
)
def test_a_uri_is_as_short_as_its_reader_would_write_it(uri: str, short: str) -> None:
    assert short_uri(uri, "default", "anna") == short


def test_a_file_has_one_line_of_a_pull_however_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = Progress(Output(color=False))

    for percent in (0, 40, 100):
        progress.show(make_job(reason="Pulling", description=f"Its image is pulled ({percent}%)"))

    assert capsys.readouterr().out == "Status: pending Pulling (Its image is pulled)\n"


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ("image://default/anna/trainer:v1", "image:trainer:v1"),
        ("image://default/boris/trainer:v1", "image:/boris/trainer:v1"),
        ("ghcr.io/anna/trainer:v1", "ghcr.io/anna/trainer:v1"),
    ],
)
def test_an_image_of_the_platform_is_shown_as_its_reader_writes_it(image: str, shown: str) -> None:
    job = make_job(image=image)
    (row,) = [job_row(job, parse_columns("image", PS_COLUMNS), VIEW)]

    assert f"Image: {shown}" in status_of(image=image)
    assert [cell[0].text for cell in row] == [shown]
