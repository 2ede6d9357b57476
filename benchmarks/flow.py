"""``neuro-flow``: whole processes beside the original's, and how long files take to be read."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import (
    Result,
    command_seconds,
    logged_in,
    ms,
    neuro_command,
    paired_seconds,
    seconds,
    server,
)
from benchmarks.peers import reference_flow
from neuro.flow.evaluate.contexts import VolumeRecord
from neuro.flow.evaluate.environment import Environment
from neuro.flow.project import check, load
from neuro.flow.workspace import Workspace, find_workspace

RUNS = 15
TEMPLATE_JOBS = 6


def neuro_flow_command() -> list[str]:
    """``neuro-flow`` of this checkout, as people call it."""
    return [str(Path(neuro_command()[0]).with_name("neuro-flow"))]


def run() -> Iterator[Result]:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        yield from measure(Path(folder), RUNS)


def measure(folder: Path, runs: int) -> Iterator[Result]:
    """All of it, with what is written below ``folder``."""
    help_times = command_seconds([*neuro_flow_command(), "--help"], dict(os.environ), runs)
    yield Result("`neuro-flow --help`, whole process", ms(statistics.median(help_times)), "≤ 60 ms")
    project = folder / "project"
    # What both understand: actions of this platform's own are unknown to the original.
    (project / ".neuro").mkdir(parents=True)
    (project / ".neuro" / "live.yml").write_text(live_file(TEMPLATE_JOBS))
    with server() as running:
        env = logged_in(running, folder)
        with reference_flow(running) as theirs_run:
            for words, budget in ((("--help",), "≤ 0.4"), (("ps",), "≤ 0.4")):
                command = [*neuro_flow_command(), *words]

                def ours(command: list[str] = command) -> None:
                    subprocess.run(
                        command, env=env, cwd=project, stdout=subprocess.DEVNULL, check=True
                    )

                def theirs(words: tuple[str, ...] = words) -> None:
                    theirs_run(*words, cwd=project)

                mine, other, ratio = paired_seconds(ours, theirs, runs)
                what = f"`neuro-flow {words[0]}`"
                if words == ("ps",):
                    what += f" with {TEMPLATE_JOBS} jobs"
                    yield Result(f"{what}, whole process", ms(mine))
                yield Result(
                    f"{what} beside neuro-flow 22.8.1, paired",
                    f"{ratio:.2f}",
                    budget,
                    f"neuro-flow: {ms(other)}",
                )
    yield from _files(folder, runs)


def _files(folder: Path, runs: int) -> Iterator[Result]:
    environment = Environment(user="anna", cwd=folder, cache_dir=folder / "cache")

    def project(name: str, file: str, text: str) -> Path:
        place = folder / name / ".neuro" / file
        place.parent.mkdir(parents=True)
        place.write_text(text)
        return folder / name

    many = live_file(200)
    large = find_workspace(project("large", "live.yml", many))
    median = _median(lambda: _check_by_command(large.root), runs)
    lines = len(many.splitlines())
    what = f"`neuro-flow check` of 200 jobs on {lines:,} lines, whole process"
    yield Result(what, ms(median), "≤ 500 ms")

    words = [*neuro_command(), "project", "init", "Bench", "--no-input", "--output-dir"]
    subprocess.run([*words, str(folder)], stdout=subprocess.DEVNULL, check=True)
    template = find_workspace(folder / "bench")
    median = _median(lambda: _resolve_all(template, environment), runs)
    yield Result("the template's live.yml, read and all its jobs evaluated", ms(median), "≤ 15 ms")

    batch = find_workspace(project("batch", "many.yml", batch_file(200)))
    median = _median(lambda: check(batch, environment=environment), runs)
    yield Result("a batch of 200 tasks, read and checked", ms(median), "≤ 25 ms")


def _check_by_command(project: Path) -> None:
    subprocess.run(
        [*neuro_flow_command(), "check"], cwd=project, stdout=subprocess.DEVNULL, check=True
    )


class _NoEffects:
    """What functions of flow files would do, left undone."""

    def upload(self, volume: VolumeRecord) -> None: ...

    def inspect_job(self, tags: tuple[str, ...]) -> None: ...


def _resolve_all(workspace: Workspace, environment: Environment) -> None:
    live = load(workspace, environment=environment)
    for job_id in live.job_ids:
        suffix = "a" if live.is_multi(job_id) else None
        live.resolve(job_id, suffix=suffix, effects=_NoEffects())


def _median(action: Callable[[], object], runs: int) -> float:
    action()
    return statistics.median(seconds(action) for _ in range(runs))


def live_file(jobs: int) -> str:
    """A live file with as many jobs, ten lines each."""
    head = """\
kind: live
title: bench
defaults:
  life_span: 1h
volumes:
  code:
    remote: storage:bench/code
    mount: /code
    local: code
images:
  base:
    ref: ubuntu
jobs:
"""
    job = """\
  job_{number}:
    image: ${{{{ images.base.ref }}}}
    params:
      rate: "0.{number}"
    volumes:
      - ${{{{ volumes.code.ref_ro }}}}
    env:
      NUMBER: "{number}"
    bash: |
      echo ${{{{ params.rate }}}} ${{{{ flow.project_id }}}} in ${{{{ volumes.code.mount }}}}
"""
    return head + "".join(job.format(number=number) for number in range(jobs))


def batch_file(tasks: int) -> str:
    """A batch file with as many tasks, each of which needs the one before."""
    head = "kind: batch\ntasks:\n"
    task = """\
- id: task_{number}
  image: ubuntu
{needs}  env:
    NUMBER: "{number}"
  bash: echo ${{{{ project.id }}}} {number}
"""
    needs = ["", *(f"  needs: [task_{number}]\n" for number in range(tasks - 1))]
    return head + "".join(
        task.format(number=number, needs=needed) for number, needed in enumerate(needs)
    )
