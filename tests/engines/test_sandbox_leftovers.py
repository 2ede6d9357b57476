"""What an earlier life left: one run's damage is that run's, and no start waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio

from neuro.engines.base import ExitCause, RunRef, RunState
from neuro.engines.sandbox import SandboxEngine, cgroups, hierarchies, kernel, layout, leftovers
from tests.engines.harness import KINDS, Runs, eventually
from tests.engines.test_sandbox_cgroups import inhabit
from tests.engines.test_sandbox_removal import nest

RECORD = {
    **{"at": 1_700_000_000_000_000_000, "started": 1_600_000_000_000_000_000, "output_bytes": 4},
    **{"exit_code": 7, "cause": "error", "message": None},
}


@pytest_asyncio.fixture
async def engine(folder: Path) -> AsyncIterator[SandboxEngine]:
    """An engine that is open and has not looked at what is there."""
    engine = SandboxEngine(folder)
    await engine.open()
    yield engine
    await engine.close()


def place_of(folder: Path, ref: RunRef) -> Path:
    place = Path(layout.run_folder(str(folder), ref.job_id, ref.run))
    place.mkdir(parents=True)
    return place


def leave_finished(folder: Path, ref: RunRef) -> Path:
    place = place_of(folder, ref)
    (place / "exit").write_text(json.dumps(RECORD))
    return place


def chattr(change: str, path: Path) -> None:
    subprocess.run(["chattr", change, str(path)], check=True)


def delete(place: Path) -> None:
    """As a person would, with ``sudo rm -rf``: in our sight nothing is mounted there."""
    layout.remove_tree(str(place))


def is_clean(folder: Path) -> bool:
    return not list(folder.glob("trash/*"))


async def test_layers_deeper_than_any_path_do_not_stop_a_start(
    engine: SandboxEngine, folder: Path
) -> None:
    known, unknown = RunRef("job-known"), RunRef("job-unknown")
    for ref in (known, unknown):
        layers = leave_finished(folder, ref) / "layers"
        layers.mkdir()
        nest(layers, 1200)

    states = await engine.adopt([known])

    assert states[known].exited is not None
    assert states[known].exited.exit_code == 7
    assert not (folder / "jobs/job-known/runs/0/layers").exists()
    assert not (folder / "jobs/job-unknown").exists()
    await eventually(lambda: is_clean(folder), "the trash is not emptied")


def _cut_record(place: Path) -> None:
    (place / "exit").write_text('{"at": 12')


def _strange_record(place: Path) -> None:
    (place / "exit").write_text('{"at": "yesterday", "cause": 3}')


def _record_is_a_folder(place: Path) -> None:
    (place / "exit").mkdir()


def _strange_state(place: Path) -> None:
    strange = {"init": ["x", []], "supervisor": 4, "pasta": [1], "berth": "../..", "groups": [1]}
    (place / "state").write_text(json.dumps(strange))


def _strange_groups(place: Path) -> None:
    (place / "state").write_text(json.dumps({"groups": {"no": "such"}, "berth": 7}))


def _state_is_a_folder(place: Path) -> None:
    (place / "state").mkdir()


def _folder_is_a_file(place: Path) -> None:
    place.rmdir()
    place.touch()


DAMAGE = [
    *(_cut_record, _strange_record, _record_is_a_folder, _strange_state, _strange_groups),
    *(_state_is_a_folder, _folder_is_a_file),
]


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_run_is_lost_and_the_others_are_found(
    engine: SandboxEngine, folder: Path, damage: Callable[[Path], None]
) -> None:
    damaged, whole = RunRef("job-damaged"), RunRef("job-whole")
    damage(place_of(folder, damaged))
    damage(place_of(folder, RunRef("job-unknown")))
    leave_finished(folder, whole)

    states = await engine.adopt([damaged, whole])

    assert _code(states[whole]) == 7
    lost = states[damaged].exited
    assert lost is not None
    assert lost.cause is ExitCause.LOST
    assert not (folder / "jobs/job-unknown").exists()


def _code(state: RunState) -> int | None:
    assert state.exited is not None
    return state.exited.exit_code


async def test_what_is_no_job_among_the_jobs_goes(engine: SandboxEngine, folder: Path) -> None:
    whole = RunRef("job-whole")
    place = leave_finished(folder, whole)
    (folder / "jobs" / "a file").touch()
    (folder / "jobs" / ".hidden" / "runs" / "0").mkdir(parents=True)
    (folder / "jobs" / "job-x" / "runs" / "²").mkdir(parents=True)
    (folder / "jobs" / "job-y").mkdir()
    (folder / "jobs" / "job-y" / "runs").touch()
    (place.parent / "²").mkdir()
    (place.parent / ".1.4711").mkdir()

    states = await engine.adopt([whole])

    assert _code(states[whole]) == 7
    assert [path.name for path in (folder / "jobs").iterdir()] == [whole.job_id]
    assert [path.name for path in place.parent.iterdir()] == ["0"]


@pytest.mark.root
async def test_what_cannot_be_removed_stops_neither_the_start_nor_the_rest(
    engine: SandboxEngine, folder: Path
) -> None:
    ref = RunRef("job-known")
    layers = leave_finished(folder, ref) / "layers"
    layers.mkdir()
    (layers / "firm").touch()
    (layers / "other").touch()
    chattr("+i", layers / "firm")
    try:
        states = await engine.adopt([ref])

        assert _code(states[ref]) == 7
        await eventually(
            lambda: [path.name for path in folder.glob("trash/*/*")] == ["firm"],
            "what can be removed is not",
        )
    finally:
        for path in [*folder.glob("trash/*/firm"), *layers.glob("firm")]:
            chattr("-i", path)


@pytest.mark.root
async def test_groups_that_jobs_left_do_not_delay_a_start(
    engine: SandboxEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = json.loads((folder / "installation").read_text())["id"]
    groups = hierarchies.find(installation)
    if not groups.version:
        pytest.skip("this machine has no control groups")
    sleepers = []
    for number in range(12):
        group = cgroups.Group(groups, f"4711-{number}")
        group.create()
        for path in group.folders.values():
            os.mkdir(f"{path}/leftover")
            sleepers.append(inhabit(f"{path}/leftover"))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(seconds)

    monkeypatch.setattr(cgroups, "time", SimpleNamespace(monotonic=time.monotonic, sleep=nap))

    await engine.adopt([])

    # What waits for them is a task that has not begun yet.
    assert naps == []
    assert [sleeper.wait(10) for sleeper in sleepers] == [-9] * len(sleepers)
    await eventually(lambda: not cgroups.names(groups), f"left: {cgroups.names(groups)}")


@pytest.mark.root
async def test_the_groups_of_a_lost_run_are_removed_with_all_below_them(
    engine: SandboxEngine, folder: Path
) -> None:
    await engine.adopt([])
    runs = Runs(engine)
    ref = await runs.start("sleep", "600")
    state = layout.read_state(f"{layout.run_folder(str(folder), ref.job_id, 0)}/state")
    assert state is not None
    group = cgroups.Group(cgroups.Groups(**state["groups"]), state["berth"])
    for path in group.folders.values():
        os.makedirs(f"{path}/leftover/deeper")

    os.kill(KINDS["sandbox"].supervisor_of(folder, ref) or 0, 9)

    assert (await runs.exited(ref)).cause is ExitCause.LOST
    await eventually(lambda: not any(map(os.path.exists, group.folders.values())), "a group stays")
    await runs.close()


@pytest.mark.parametrize("whole_job", [True, False])
async def test_a_run_whose_folder_is_deleted_ends_and_is_lost(
    own_runs: Runs, folder: Path, kind: object, whole_job: bool
) -> None:
    ref = await own_runs.start("sleep", "600")
    supervisor = KINDS["sandbox"].supervisor_of(folder, ref)
    place = folder / "jobs" / ref.job_id
    delete(place if whole_job else place / "runs" / "0")

    exited = await own_runs.exited(ref)

    assert (exited.cause, exited.exit_code) == (ExitCause.LOST, None)
    assert exited.message == "the run's folder was deleted while it ran"
    await eventually(lambda: not os.path.exists(f"/proc/{supervisor}"), "its supervisor goes on")


async def test_a_run_whose_folder_is_deleted_can_be_stopped_at_once(
    own_runs: Runs, folder: Path
) -> None:
    ref = await own_runs.start("sleep", "600")
    delete(folder / "jobs" / ref.job_id)

    await own_runs.engine.stop(ref, 0)

    assert (await own_runs.exited(ref)).cause is ExitCause.LOST


async def test_a_run_whose_folder_was_deleted_without_a_server_ends_at_the_next_start(
    folder: Path,
) -> None:
    first = SandboxEngine(folder)
    await first.open()
    await first.adopt([])
    runs = Runs(first)
    ref = await runs.start("sleep", "600")
    supervisor = KINDS["sandbox"].supervisor_of(folder, ref)
    await runs.close()
    delete(folder / "jobs" / ref.job_id)
    second = SandboxEngine(folder)
    await second.open()

    states = await second.adopt([ref])

    assert states == {}
    await eventually(lambda: not os.path.exists(f"/proc/{supervisor}"), "its supervisor goes on")
    await second.close()


def test_a_supervisor_outlives_a_run_that_is_over(folder: Path) -> None:
    """It may look after another run by then."""
    over, going = RunRef("job-over"), RunRef("job-going")
    place = leave_finished(folder, over)
    processes = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    for each, process in zip((place, place_of(folder, going)), processes, strict=True):
        identity = process.pid, kernel.process_start(process.pid)
        layout.add_state(f"{each}/state", {"supervisor": identity})

    for ref in (over, going):
        leftovers.destroy_run(str(folder), ref, cgroups.Groups())

    assert processes[1].wait(10) == -9
    assert processes[0].poll() is None
    processes[0].kill()
    processes[0].wait()


def test_a_run_without_a_folder_is_buried_as_deleted(folder: Path) -> None:
    (folder / "jobs").mkdir(parents=True)

    record, left = leftovers.bury(str(folder), RunRef("job-gone"), cgroups.Groups(), told={})

    assert record.message == "the run's folder was deleted while it ran"
    assert not left
    assert not list((folder / "jobs").iterdir())
