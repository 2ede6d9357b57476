"""Starting, stopping and removing: what may be asked, when, and how often."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import msgspec
import pytest

from neuro.domain.uris import ResourceURI
from neuro.engines.base import (
    Disk,
    EngineFault,
    ExitCause,
    Exited,
    NotReady,
    RunNotFound,
    RunRef,
    Started,
    Volume,
    Waiting,
    WaitReason,
)
from tests.engines.harness import EngineKind, Has, Runs, gone, mounted, needs, spec


async def test_starting_twice_runs_once(runs: Runs) -> None:
    begun = spec("sh", "-c", "echo ran; sleep 0.2")

    await asyncio.gather(*(runs.engine.start(begun) for _ in range(5)))
    done = await runs.finished(RunRef(begun.job_id))

    assert done.output == b"ran\n"


async def test_starting_what_is_over_does_nothing(runs: Runs) -> None:
    done = await runs.run("echo", "once", job_id="job-over")

    await runs.engine.start(spec("echo", "twice", job_id="job-over"))

    assert await runs.output(done.ref.job_id, follow=True) == b"once\n"


async def test_started_comes_before_exited(runs: Runs) -> None:
    done = await runs.run("true")

    kinds = [type(event) for event in runs.told if event.ref == done.ref]
    assert kinds == [Started, Exited]


@needs(Has.IMAGES)
async def test_a_run_that_waits_for_its_image_says_how_far_that_is(
    runs: Runs, kind: EngineKind
) -> None:
    begun = spec("true", image=kind.held_image())
    await runs.engine.start(begun)
    await runs.waits(RunRef(begun.job_id))
    kind.let_go(begun.image)
    done = await runs.finished(RunRef(begun.job_id))

    assert done.code == 0
    told = [event for event in runs.told if event.ref == done.ref]
    waits = [event for event in told if isinstance(event, Waiting)]
    assert told[: len(waits)] == waits
    assert {event.reason for event in waits} == {WaitReason.PULLING}
    assert [event.progress for event in waits] == sorted(event.progress or 0 for event in waits)


async def test_stop_is_a_term_signal_to_the_main_process(runs: Runs) -> None:
    script = "trap 'echo terminated; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    ref = await runs.start("sh", "-c", script)
    await runs.says(ref.job_id, b"ready")

    await runs.engine.stop(ref, 20)
    done = await runs.finished(ref)

    assert (done.code, done.lines[-1]) == (5, "terminated")


async def test_what_ignores_the_signal_is_killed_after_the_grace(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    await runs.says(ref.job_id, b"ready")

    await runs.engine.stop(ref, 0.2)
    done = await runs.exited(ref)

    assert done.exit_code == 128 + signal.SIGKILL
    assert done.cause == ExitCause.ERROR


async def test_a_second_stop_may_be_more_urgent(runs: Runs) -> None:
    ref = await runs.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    await runs.says(ref.job_id, b"ready")

    await runs.engine.stop(ref, 600)
    await runs.engine.stop(ref, 0)

    assert (await runs.exited(ref)).exit_code == 137


async def test_a_stop_right_after_the_start_is_not_lost(runs: Runs) -> None:
    begun = spec("sleep", "600")
    await runs.engine.start(begun)

    await runs.engine.stop(RunRef(begun.job_id), 5)

    assert (await runs.exited(RunRef(begun.job_id))).exit_code == 143


async def test_stopping_what_is_over_or_unknown_does_nothing(runs: Runs) -> None:
    done = await runs.run("true")

    assert await runs.engine.stop(done.ref, 1)
    assert not await runs.engine.stop(RunRef("job-unknown"), 1)
    assert not await runs.engine.stop(RunRef(done.ref.job_id, 1), 1)


@needs(Has.PROGRAMS)
async def test_children_do_not_outlive_their_run(runs: Runs, tmp_path: Path) -> None:
    number = "31415.926"
    done = await runs.shell(f"setsid sleep {number} & nohup sleep {number} & echo done")

    assert done.code == 0
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _says(path, number)]


def _says(path: Path, text: str) -> bool:
    try:
        return text in path.read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return False


@needs(Has.PROGRAMS)
async def test_a_removed_job_leaves_nothing(own_runs: Runs, kind: EngineKind, folder: Path) -> None:
    done = await own_runs.shell("echo hello > /usr/hello; echo hello")

    await own_runs.engine.remove(done.ref.job_id)

    with pytest.raises(RunNotFound):
        await own_runs.output(done.ref.job_id)
    await gone(lambda: kind.traces(folder))


async def test_removing_twice_does_nothing(runs: Runs) -> None:
    done = await runs.run("true")

    await runs.engine.remove(done.ref.job_id)
    await runs.engine.remove(done.ref.job_id)
    await runs.engine.remove("job-unknown")


async def test_a_removed_job_may_be_started_again(runs: Runs) -> None:
    await runs.run("echo", "old", job_id="job-phoenix")
    await runs.engine.remove("job-phoenix")
    runs.told.clear()

    done = await runs.run("echo", "new", job_id="job-phoenix")

    assert done.output == b"new\n"


async def test_a_volume_that_does_not_exist_cannot_start_and_says_why(runs: Runs) -> None:
    done = await runs.run("true", volumes=(mounted(source="/no/such/folder", target="/data"),))

    assert done.exited.cause == ExitCause.CANNOT_START
    assert "/data" in (done.exited.message or "")


async def test_what_an_engine_does_not_have_is_refused_with_a_sentence(runs: Runs) -> None:
    """No engine here has disks; one that has is for another test."""
    begun = spec("true", disks=(Disk(name="disk-1", target="/disk"),))

    with pytest.raises(EngineFault, match="This engine has no disks") as refused:
        await runs.engine.start(begun)

    assert not isinstance(refused.value, NotReady)
    assert not await runs.engine.stop(RunRef(begun.job_id), 0)


async def test_a_volume_of_another_cluster_is_refused(runs: Runs) -> None:
    for uri in ("storage://elsewhere/alice/data", "storage://tests/alice/.."):
        scheme, _, rest = uri.partition("://")
        host, *segments = rest.split("/")
        source = ResourceURI(scheme, host, tuple(segments))
        begun = msgspec.structs.replace(spec("true"), volumes=(Volume(source=source, target="/v"),))

        with pytest.raises(EngineFault, match="is not in the storage of cluster tests"):
            await runs.engine.start(begun)


async def test_fifty_runs_at_once_all_end_right(runs: Runs) -> None:
    specs = [spec("sh", "-c", f"echo {i}; exit {i}") for i in range(50)]

    await asyncio.gather(*(runs.engine.start(one) for one in specs))
    done = await asyncio.gather(*(runs.finished(RunRef(one.job_id), 100) for one in specs))

    assert [(one.code, one.output) for one in done] == [(i, f"{i}\n".encode()) for i in range(50)]
