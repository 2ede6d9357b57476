"""Finding what an earlier life left behind, and taking it away. All of it blocks.

One run's damage is that run's: whatever is wrong with its folder, the others are found. Nothing
here waits long, and nothing is deleted file by file: it moves to the trash, and groups whose
processes take their time are handed back. ``tidying`` does the rest behind a server that is up.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from neuro.engines.base import RunRef
from neuro.engines.exhaustion import EXHAUSTED
from neuro.engines.sandbox import cgroups, layout, neighbours
from neuro.engines.sandbox.ending import LOST, Ending, ExitRecord
from neuro.engines.sandbox.output import kept_bytes
from neuro.engines.sandbox.processes import same_process
from neuro.engines.sandbox.removal import Stopped

PATIENCE = 2.0  # seconds for killed processes to be gone, of all runs together
_VANISHED = "the process that looked after the run vanished (a reboot, or it was killed)"
_DAMAGED = "the record of how the run ended is damaged: whether it succeeded is not known"
_DELETED = "the run's folder was deleted while it ran"
_SERVERS_GROUP = "neuro-server"

log = logging.getLogger("neuro.engine")


def runs(folder: str) -> list[RunRef]:
    """Every run that has a folder, oldest first within a job.

    Raises OSError where they can be found later: none may be taken for lost.
    """
    found: list[RunRef] = []
    for job_id in filter(layout.is_job_id, jobs(folder)):
        names = _found(f"{folder}/jobs/{job_id}/runs")
        numbers = sorted(int(name) for name in names if _is_run(name))
        found += [RunRef(job_id, number) for number in numbers]
    return found


def jobs(folder: str) -> list[str]:
    """The name of everything that lies where jobs have their folders. Raises OSError: see runs."""
    return _found(f"{folder}/jobs")


def _is_run(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def may_go_on(folder: str) -> bool:
    """Whether a run is not known to be over: what runs share is theirs until then."""
    try:
        return any(
            layout.read_exit(layout.run_folder(folder, ref.job_id, ref.run)) is None
            for ref in runs(folder)
        )
    except OSError:  # a run whose record cannot be read may go on
        return True


def is_copy(folder: str) -> bool:
    """Whether a run of this folder goes on in another one, of which this is a copy.

    Its supervisor lives, and nobody listens where it would. For folders of earlier versions, which
    do not know their place. Raises OSError where that can be told later.
    """
    for ref in runs(folder):
        place = layout.run_folder(folder, ref.job_id, ref.run)
        if os.path.lexists(f"{place}/{layout.EXIT}"):
            continue
        state = layout.read_state(f"{place}/{layout.STATE}") or {}
        if same_process(state.get("supervisor")) is None:
            continue
        try:
            layout.connect(place).close()
        except OSError as error:
            if error.errno in EXHAUSTED:
                raise
            return not os.path.lexists(f"{place}/{layout.EXIT}")
    return False


def forget_processes(folder: str) -> None:
    """Forget which processes, groups and networks the runs have: this folder is only a copy."""
    for ref in runs(folder):
        place = layout.run_folder(folder, ref.job_id, ref.run)
        for name in (layout.SOCKET, layout.STATE):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{place}/{name}")
    for name in ("berths", "neighbours"):
        discard(folder, f"{folder}/{name}")


def finished(
    folder: str, refs: Collection[RunRef]
) -> tuple[dict[RunRef, ExitRecord], list[RunRef]]:
    """The exit records of those that have one, whose private files go; and those without."""
    records: dict[RunRef, ExitRecord] = {}
    rest: list[RunRef] = []
    for ref in refs:
        try:
            record = layout.read_exit(layout.run_folder(folder, ref.job_id, ref.run))
        except OSError:
            record = None
        if record is None:
            rest.append(ref)
            continue
        if record.may_begin_again:  # as if it had never been asked for
            discard(folder, layout.run_folder(folder, ref.job_id, ref.run))
            continue
        records[ref] = record
        sweep_run(folder, ref)  # a supervisor that was killed after its record may have left files
    return records, rest


def lost(folder: str, ref: RunRef, why: str) -> ExitRecord:
    """The exit record of a run of which nothing more is known than ``why``."""
    kept = kept_bytes(layout.output_folder(folder, ref.job_id))
    return ExitRecord.of(Ending(None, LOST, why), time.time_ns(), output_bytes=kept)


def bury(
    folder: str,
    ref: RunRef,
    groups: cgroups.Groups,
    *,
    until: float | None = None,
    told: Mapping[str, Any] | None = None,
    why: str | None = None,
) -> tuple[ExitRecord, list[cgroups.Group]]:
    """Clean up after a run whose supervisor vanished; its exit record, which is written here.

    ``told`` is what the supervisor said of itself, for a run whose folder is gone; ``why`` is what
    is known of its end, if it is not that the supervisor vanished. Waits for killed
    processes ``until`` a monotonic time, 2 seconds by default. Also returns the control groups that
    are still there. Raises nothing for what is damaged: the run is lost anyway. Raises OSError
    where it must be tried again.
    """
    place = layout.run_folder(folder, ref.job_id, ref.run)
    is_there = os.path.isdir(place)
    state = layout.read_state(f"{place}/{layout.STATE}") or dict(told or {})
    left = _kill_rest(folder, ref, state, groups, _moment(until))
    record = lost(folder, ref, why or _what_happened(place))
    if is_there:
        # The private files go first: they may be what fills the disk.
        _discard_private(folder, place)
        try:
            layout.write_exit(place, record)
        except OSError as error:  # the next server buries it once more
            log.warning("the end of %s is not on disk: %s", _named(ref), error)
        sweep_run(folder, ref)
    return record, left


def _what_happened(place: str) -> str:
    if not os.path.isdir(place):
        return _DELETED
    return _DAMAGED if os.path.lexists(f"{place}/{layout.EXIT}") else _VANISHED


def sweep_run(folder: str, ref: RunRef) -> None:
    """Take away the private files of a finished run; its log and its exit record stay."""
    place = layout.run_folder(folder, ref.job_id, ref.run)
    _discard_private(folder, place)
    for name in {layout.SOCKET, layout.STATE} & set(_names(place)):
        try:
            os.unlink(f"{place}/{name}")
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("a file of %s stays: %s", _named(ref), error)


def _discard_private(folder: str, place: str) -> None:
    # A start asks this of every run whose log is kept: one call for those with nothing left.
    # Earlier versions had a root as well.
    for name in {"root", "layers"} & set(_names(place)):
        discard(folder, f"{place}/{name}")


def destroy_run(
    folder: str, ref: RunRef, groups: cgroups.Groups, *, until: float | None = None
) -> list[cgroups.Group]:
    """Kill everything that belongs to a run that nobody knows; its groups that are still there.

    Raises OSError where it must be tried again.
    """
    place = layout.run_folder(folder, ref.job_id, ref.run)
    state = layout.read_state(f"{place}/{layout.STATE}") or {}
    moment = _moment(until)
    # Once its end is written, its supervisor may look after another run.
    if not os.path.lexists(f"{place}/{layout.EXIT}"):
        supervisor = same_process(state.get("supervisor"))
        if supervisor is not None:
            _kill_and_wait(supervisor, moment)
    return _kill_rest(folder, ref, state, groups, moment)


def discard(folder: str, path: str) -> None:
    """Make a file or folder of the engine's vanish at once; ``empty_trash`` deletes it.

    What cannot be moved stays where it is, and that is logged.
    """
    name = f"{os.path.basename(path)[:40]}.{time.time_ns()}"
    try:
        os.makedirs(f"{folder}/trash", exist_ok=True)
        os.rename(path, f"{folder}/trash/{name}")
    except FileNotFoundError:
        pass
    except OSError:  # the disk is too full for one more name: then it goes from where it lies
        _remove(path, lambda: False)


def discard_job(folder: str, job_id: str) -> None:
    """Make a job's folder vanish at once; ``empty_trash`` deletes it."""
    discard(folder, layout.job_folder(folder, job_id))


def empty_trash(folder: str, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete what was discarded; how many things cannot be. Raises ``removal.Stopped``."""
    names = _names(f"{folder}/trash")
    return sum(not _remove(f"{folder}/trash/{name}", stop) for name in names)


def _remove(path: str, stop: Callable[[], bool]) -> bool:
    try:
        layout.remove_tree(path, stop)
    except Stopped:
        raise
    except Exception as error:
        log.warning("cannot delete %s: %s", path, error)
        return False
    return True


def sweep(
    folder: str,
    groups: cgroups.Groups,
    *,
    known: Collection[str],
    going: Collection[str],
    zygote: int | None,
) -> list[cgroups.Group]:
    """Take away the jobs that are not ``known``, and all that belongs to no run.

    ``going`` are the berths of runs that go on; those of the live ``zygote`` stay too. Returns the
    control groups that are still there: their processes are killed. Raises OSError where there are
    no descriptors: the next start does it.
    """
    for name in jobs(folder):
        if name not in known:
            discard(folder, f"{folder}/jobs/{name}")
            continue
        for run in _names(f"{folder}/jobs/{name}/runs"):
            if not _is_run(run):  # claimed by a zygote that died, for a run that never began
                discard(folder, f"{folder}/jobs/{name}/runs/{run}")
    try:
        neighbours.sweep(folder)
    except OSError as error:
        log.warning("the jobs that know each other cannot be looked through: %s", error)
    every = groups, cgroups.of_control(groups)
    names = {*_names(f"{folder}/berths"), *(name for each in every for name in cgroups.names(each))}
    names -= {*going, _SERVERS_GROUP}
    unused = [name for name in names if not name.startswith(f"{zygote}-")]
    for name in unused:
        discard(folder, layout.berth_folder(folder, name))
    return cgroups.clear([cgroups.Group(each, name) for each in every for name in unused], 0)


def _kill_rest(
    folder: str, ref: RunRef, state: Mapping[str, Any], groups: cgroups.Groups, until: float
) -> list[cgroups.Group]:
    """Kill the sandbox by its init, then by its control group; the groups that are still there."""
    for name in ("init", "pasta"):
        process = same_process(state.get(name))
        if process is not None:
            _kill_and_wait(process, until)
    match state.get("neighbour"):
        case [int(number), str(address)]:
            with contextlib.suppress(OSError):  # a name that stays leads nowhere
                neighbours.withdraw(folder, number, address)
    berth = layout.berth_of(state, ref.job_id, ref.run)
    places = [groups, *_recorded(state.get("groups"))]
    left = cgroups.clear(
        [cgroups.Group(place, berth) for place in places], max(0.0, until - time.monotonic())
    )
    discard(folder, layout.berth_folder(folder, berth))
    return left


def _recorded(groups: object) -> list[cgroups.Groups]:
    """Where the groups of a run were: the server may have been in another one itself then."""
    try:
        return [cgroups.Groups(**groups)] if isinstance(groups, dict) else []
    except TypeError:
        return []


def _kill_and_wait(pid: int, until: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(max(0.0, until - time.monotonic()) * 1000)
    except OSError:
        pass
    finally:
        os.close(fd)


def _moment(until: float | None) -> float:
    return time.monotonic() + PATIENCE if until is None else until


def _named(ref: RunRef) -> str:
    return f"run {ref.run} of {ref.job_id}"


def _names(folder: str) -> list[str]:
    """What is in a folder; nothing where there is none, or it cannot be read."""
    try:
        return _found(folder)
    except OSError as error:
        log.warning("cannot read %s: %s", folder, error)
        return []


def _found(folder: str) -> list[str]:
    """``_names``, but raises OSError where it can be read later."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        log.warning("cannot read %s: %s", folder, error)
        return []
