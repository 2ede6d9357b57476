"""Finding what an earlier life left behind, and taking it away. All of it blocks."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any

from neuro.engines.base import RunRef
from neuro.engines.sandbox import cgroups, layout
from neuro.engines.sandbox.ending import LOST
from neuro.engines.sandbox.kernel import process_start
from neuro.engines.sandbox.output import kept_bytes

_PATIENCE = 5.0  # seconds for killed processes to be gone


def runs(folder: str) -> list[RunRef]:
    """Every run that has a folder, oldest first within a job."""
    found: list[RunRef] = []
    for job_id in _names(f"{folder}/jobs"):
        numbers = [int(name) for name in _names(f"{folder}/jobs/{job_id}/runs") if name.isdigit()]
        found += [RunRef(job_id, number) for number in sorted(numbers)]
    return found


def jobs(folder: str) -> list[str]:
    """Every job that has a folder."""
    return _names(f"{folder}/jobs")


def bury(folder: str, ref: RunRef, groups: cgroups.Groups) -> dict[str, Any]:
    """Clean up after a run whose supervisor vanished; its exit record, which is written here.

    Its first process dies with its parent, so normally only folders and groups are left.
    """
    place = layout.run_folder(folder, ref.job_id, ref.run)
    state = layout.read_state(f"{place}/{layout.STATE}") or {}
    _kill_rest(folder, ref, state, groups)
    record: dict[str, Any] = {
        "at": time.time_ns(),
        "started": None,
        "output_bytes": kept_bytes(layout.output_folder(folder, ref.job_id)),
        "exit_code": None,
        "cause": LOST,
        "message": "the process that looked after the run vanished (a reboot, or it was killed)",
    }
    layout.write_record(f"{place}/{layout.EXIT}", record)
    sweep_run(folder, ref)
    return record


def sweep_run(folder: str, ref: RunRef) -> None:
    """Delete the private files of a finished run; its log and its exit record stay."""
    place = layout.run_folder(folder, ref.job_id, ref.run)
    for name in ("root", "layers", layout.SOCKET, layout.STATE):
        layout.remove_tree(f"{place}/{name}")


def destroy_run(folder: str, ref: RunRef, groups: cgroups.Groups) -> None:
    """Kill everything that belongs to a run that nobody knows."""
    place = layout.run_folder(folder, ref.job_id, ref.run)
    state = layout.read_state(f"{place}/{layout.STATE}") or {}
    supervisor = _same_process(state.get("supervisor"))
    if supervisor is not None:
        _kill_and_wait(supervisor)
    _kill_rest(folder, ref, state, groups)


def discard_job(folder: str, job_id: str) -> None:
    """Make a job's folder vanish at once; ``empty_trash`` deletes it."""
    trash = f"{folder}/trash"
    os.makedirs(trash, exist_ok=True)
    try:
        os.rename(layout.job_folder(folder, job_id), f"{trash}/{job_id}.{time.time_ns()}")
    except FileNotFoundError:
        pass


def empty_trash(folder: str) -> None:
    """Delete what was discarded."""
    for name in _names(f"{folder}/trash"):
        layout.remove_tree(f"{folder}/trash/{name}")


def sweep_berths(folder: str, groups: cgroups.Groups, going: set[str], zygote: int | None) -> None:
    """Take away berths and control groups but those in ``going`` and those of ``zygote``."""
    for name in {*cgroups.names(groups), *_names(f"{folder}/berths")} - going - {"neuro-server"}:
        if not name.startswith(f"{zygote}-"):
            group = cgroups.Group(groups, name)
            group.kill()
            group.remove(_PATIENCE)
            layout.remove_tree(layout.berth_folder(folder, name))


def _kill_rest(folder: str, ref: RunRef, state: dict[str, object], groups: cgroups.Groups) -> None:
    """Kill the sandbox by its init, then by its control group, and delete the group."""
    for name in ("init", "pasta"):
        process = _same_process(state.get(name))
        if process is not None:
            _kill_and_wait(process)
    recorded = state.get("groups")
    berth = layout.berth_of(state, ref.job_id, ref.run)
    places = [groups]
    if isinstance(recorded, dict):
        places.append(cgroups.Groups(**recorded))  # the server was in another group then
    for place in places:
        group = cgroups.Group(place, berth)
        group.kill()
        group.remove(_PATIENCE)
    layout.remove_tree(layout.berth_folder(folder, berth))


def _same_process(identity: object) -> int | None:
    """The pid of a recorded [pid, start] if it is still that process."""
    if not isinstance(identity, list) or len(identity) != 2 or identity[1] is None:
        return None
    pid, start = identity
    return int(pid) if process_start(int(pid)) == start else None


def _kill_and_wait(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(_PATIENCE * 1000)
    except OSError:
        pass
    finally:
        os.close(fd)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
