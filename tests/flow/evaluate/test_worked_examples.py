"""Whole jobs, with the results that the reference gives."""

from __future__ import annotations

from neuro.flow.evaluate.jobs import ResolvedJob
from tests.flow.worked_job import JOB


def test_a_job_with_everything(place) -> None:
    assert place.resolve(JOB, "job_a", params={"p": "zz"}) == ResolvedJob(
        id="job_a",
        image="image:im:v1",
        description="live.job_a",
        name="my-ws-job-a",
        preset="cpu",
        schedule_timeout=90.0,
        life_span=86400.0,
        http_port=8080,
        http_auth=False,
        entrypoint="ep",
        cmd="""bash -euo pipefail -c 'echo zz "$X"'""",
        workdir="/w",
        env={"A": "over", "B": "12"},
        volumes=("storage:d:/d", "storage:vol:/vol:ro", "storage:other:/other:rw"),
        tags=("flow:live", "job:job-a", "project:my-ws", "t1", "t2"),
        detach=True,
        browse=True,
        port_forward=("1:2",),
        pass_config=True,
        restart="always",
        multi=False,
        suffix=None,
    )


MIXINS = """\
mixins:
  m1: {image: i1, env: {A: 1, B: 1}, tags: [x1], cmd: c1}
  m3: {preset: p3, env: {C: 3, A: 3}}
  m2: {image: i2, env: {A: 2}, tags: [x2], mixins: [m3]}
jobs:
  a: {mixins: [m1, m2], env: {B: job}}
"""


def test_mixins(place) -> None:
    job = place.resolve(MIXINS)
    assert (job.image, job.preset, job.cmd) == ("i2", "p3", "c1")
    assert job.env == {"A": "2", "B": "job", "C": "3"}
    assert {"x1", "x2"} <= set(job.tags)
