"""Claiming a run: its folder appears under its name once, and whole.

Taking back what was claimed needs no descriptor: that there are none left is the usual reason.
"""

from __future__ import annotations

import errno
import os
import socket

from neuro.engines.sandbox import layout


def claim(folder: str, job_id: str, run: int, berth: str) -> socket.socket | None:
    """A listening socket in the run's folder, or None where the run was claimed before.

    ``berth`` is what the run will lie in. Raises ValueError for a name that no job has, OSError:
    then nothing is left.
    """
    final = layout.run_folder(folder, job_id, run)
    if os.path.exists(final):
        return None
    place = _before(final)
    try:
        os.makedirs(place)
    except FileExistsError:  # of an earlier zygote with our pid
        layout.remove_claim(place)
        os.makedirs(place)
    listener: socket.socket | None = None
    try:
        listener = layout.listen(place)
        # From here on whoever cleans up after the run must know what it would lie in.
        layout.add_state(f"{place}/{layout.STATE}", {"berth": berth})
        layout.keep_room(place)
        os.rename(place, final)
    except OSError as error:
        if listener is not None:
            listener.close()
        layout.remove_claim(place)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return None
        raise
    return listener


def withdraw(folder: str, job_id: str, run: int) -> None:
    """Take a claim back that nobody was given: the run can be claimed again. Raises OSError."""
    final = layout.run_folder(folder, job_id, run)
    place = _before(final)
    os.rename(final, place)  # whatever of it stays is no run: the next start of a server sweeps it
    layout.remove_claim(place)


def _before(final: str) -> str:
    """Where the folder of a run is made, before it is one."""
    parent, run = os.path.split(final)
    return f"{parent}/.{run}.{os.getpid()}"
