"""commit makes an image of a run, and later runs begin from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuro.engines.base import Commits, File, RunNotFound
from tests.engines.harness import Has, Runs, mounted, needs

pytestmark = needs(Commits, Has.PROGRAMS)


async def written(runs: Runs, text: str, **options: object) -> str:
    """The job of a run that goes on and has written a file."""
    script = f"mkdir -p made; echo {text} > made/file; echo ready; sleep 600"
    ref = await runs.start("sh", "-c", script, **options)
    await runs.says(ref.job_id, b"ready")
    return ref.job_id


async def test_a_run_begins_with_the_files_of_the_one_that_its_image_was_made_of(
    runs: Runs,
) -> None:
    job_id = await written(runs, "one")

    await runs.engine.commit(job_id, "alice/kept:1")
    first = await runs.shell("cat made/file; echo two > made/file", image="alice/kept:1")
    second = await runs.shell("cat made/file", image="alice/kept:1")
    other = await runs.shell("cat made/file", image="alice/kept:2")

    assert (first.output, second.output) == (b"one\n", b"one\n")
    assert b"one" not in other.output  # an engine that pulls images finds no such one


async def test_an_image_is_replaced_and_the_run_goes_on(runs: Runs) -> None:
    old, new = await written(runs, "old"), await written(runs, "new")

    for job_id in (old, new):
        await runs.engine.commit(job_id, "kept")

    assert (await runs.shell("cat made/file", image="kept")).output == b"new\n"
    states = await runs.engine.resync([event.ref for event in runs.told])
    assert [states[ref].exited for ref in states if ref.job_id in (old, new)] == [None, None]


async def test_what_was_given_to_a_run_is_not_in_its_image(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("shared")
    job_id = await written(
        runs,
        "own",
        files=(File(target="/made/secret", content=b"hush"),),
        volumes=(mounted(source=tmp_path, target="/made/volume"),),
    )

    await runs.engine.commit(job_id, "kept")
    done = await runs.shell("cat made/file made/secret; ls -A made/volume", image="kept")

    assert done.lines[0] == "own"
    assert b"hush" not in done.output
    assert b"shared" not in done.output


async def test_only_what_runs_has_an_image_made_of_it(runs: Runs) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await runs.engine.commit(job_id, "kept")
