"""System V shared memory, queues and semaphores: memory that a run holds without mapping it.

Control groups count it. Where memory is watched, nobody sees it, so that there may be much of it is
forbidden in the run's own IPC namespace.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

_PAGE = os.sysconf("SC_PAGE_SIZE")
_QUEUE = 16 << 10  # bytes that one queue holds, as the kernel has it
_SHARE_OF_QUEUES = 8  # all queues together hold this part of the memory
_FEWEST_QUEUES, _MOST_QUEUES = 32, 32_000
_SEMAPHORES = "250 32000 100 1024"  # in a set, in all, changed in one call; sets


def open_limits() -> dict[str, int]:
    """The limits of the calling process's IPC namespace, open for writing, by their names.

    To be called where /proc is the machine's. Those that the kernel lets nobody change but the
    machine's root are left out: before Linux 6.11 these are all.
    """
    found = {}
    for name in ("shmall", "msgmni", "sem"):
        try:
            found[name] = os.open(f"/proc/sys/kernel/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            pass
    return found


def bound(limits: Mapping[str, int], memory: int) -> None:
    """Let all of it together be ``memory`` bytes, and little more. Raises OSError."""
    queues = memory // _SHARE_OF_QUEUES // _QUEUE
    values = {
        "shmall": str(memory // _PAGE),
        "msgmni": str(min(_MOST_QUEUES, max(_FEWEST_QUEUES, queues))),
        "sem": _SEMAPHORES,
    }
    for name, limit in limits.items():
        os.write(limit, values[name].encode())
        os.close(limit)
