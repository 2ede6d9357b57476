"""commit makes an image of a run, and later runs begin from it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from neuro.engines.base import (
    Commits,
    EngineFault,
    File,
    PullCredentials,
    RunNotFound,
    SaveStep,
    Saving,
)
from tests.engines import docker_surroundings
from tests.engines.harness import EngineKind, Has, Runs, mounted, needs

# That an engine without them makes images too is for its own tests.
pytestmark = needs(Commits, Has.PROGRAMS, Has.IMAGES)

ME = PullCredentials("me", "secret")


@pytest.fixture
def host(kind: EngineKind) -> str:
    """The host of a registry that takes images."""
    return kind.pushes


async def written(runs: Runs, text: str, **options: object) -> str:
    """The job of a run that goes on and has written a file."""
    script = f"mkdir -p made; echo {text} > made/file; echo ready; sleep 600"
    ref = await runs.start("sh", "-c", script, **options)
    await runs.says(ref.job_id, b"ready")
    return ref.job_id


async def commit(runs: Runs, job_id: str, image: str) -> list[SaveStep]:
    """Save a run, and hear how far that is."""
    told: list[SaveStep] = []
    assert isinstance(runs.engine, Commits)
    await runs.engine.commit(job_id, Saving(image=image, push=ME, base="ubuntu"), told.append)
    return told


async def test_a_run_begins_with_the_files_of_the_one_that_its_image_was_made_of(
    runs: Runs, host: str
) -> None:
    job_id = await written(runs, "one")
    kept = f"{host}/alice/kept:1"

    told = await commit(runs, job_id, kept)
    first = await runs.shell("cat made/file; echo two > made/file", image=kept, pull=ME)
    second = await runs.shell("cat made/file", image=kept, pull=ME)

    assert (first.output, second.output) == (b"one\n", b"one\n")
    assert (told[0].share, told[-1].share) == (0.0, 1.0)


async def test_an_image_is_replaced_and_the_run_goes_on(runs: Runs, host: str) -> None:
    old, new = await written(runs, "old"), await written(runs, "new")
    kept = f"{host}/kept:1"

    for job_id in (old, new):
        await commit(runs, job_id, kept)

    assert (await runs.shell("cat made/file", image=kept, pull=ME)).output == b"new\n"
    states = await runs.engine.resync([event.ref for event in runs.told])
    assert [states[ref].exited for ref in states if ref.job_id in (old, new)] == [None, None]


async def test_what_was_given_to_a_run_is_not_in_its_image(
    runs: Runs, host: str, tmp_path: Path
) -> None:
    (tmp_path / "shared").write_text("shared")
    job_id = await written(
        runs,
        "own",
        files=(File(target="/made/secret", content=b"hush"),),
        volumes=(mounted(source=tmp_path, target="/made/volume"),),
    )
    kept = f"{host}/kept:2"

    await commit(runs, job_id, kept)
    script = "cat made/file made/secret; ls -A made/volume"
    done = await runs.shell(script, image=kept, pull=ME)

    assert done.lines[0] == "own"
    assert b"hush" not in done.output
    assert b"shared" not in done.output


async def test_only_what_runs_has_an_image_made_of_it(runs: Runs, host: str) -> None:
    done = await runs.run("true")

    for job_id in (done.ref.job_id, "job-unknown"):
        with pytest.raises(RunNotFound):
            await commit(runs, job_id, f"{host}/kept:3")


async def test_a_registry_that_does_not_take_it_is_told(runs: Runs, host: str) -> None:
    job_id = await written(runs, "one")

    with pytest.raises(EngineFault, match=r"it is not yours|denied"):
        await commit(runs, job_id, f"{host}/{docker_surroundings.DENIED}:1")


async def test_who_gives_up_leaves_a_run_that_can_be_saved(runs: Runs, host: str) -> None:
    job_id = await written(runs, "one")
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    saving = Saving(image=f"{host}/kept:5", push=ME, base="ubuntu")
    assert isinstance(runs.engine, Commits)

    task = asyncio.create_task(
        runs.engine.commit(job_id, saving, lambda step: loop.call_soon_threadsafe(begun.set))
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await commit(runs, job_id, f"{host}/kept:5"))[-1].share == 1.0
