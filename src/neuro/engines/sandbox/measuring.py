"""What a run uses now, and what it listens on. All of it blocks."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro.engines.base import RunRef
from neuro.engines.sandbox import cgroups, layout, watching

DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
_MINOR = re.compile(r"^Device Minor:\s*(\d+)", re.MULTILINE)
_LISTEN = "0A"


@dataclass(frozen=True)
class Sample:
    """``cpu_seconds`` since the run began, ``memory`` in bytes; GPU in percent and bytes."""

    cpu_seconds: float
    memory: int
    gpu_utilization: int | None = None
    gpu_memory: int | None = None


def sample(ref: RunRef, state: dict[str, Any]) -> Sample | None:
    """Measure the run that told ``state``; None if it is gone."""
    groups = cgroups.Groups(**state["groups"])
    utilization, memory = _gpu(state.get("gpus", []))
    init = state.get("init")
    if groups.version == 0:
        if init is None or not os.path.exists(f"/proc/{init}"):
            return None
        used = watching.proportional(init, watching.files_in_memory(init))
        return Sample(watching.cpu_seconds(init), used, utilization, memory)
    group = cgroups.Group(groups, layout.berth_of(state, ref.job_id, ref.run))
    try:
        return Sample(group.cpu_seconds(), group.memory(), utilization, memory)
    except OSError:
        return None


def _gpu(gpus: list[int]) -> tuple[int | None, int | None]:
    """Utilization (the mean, percent) and memory (the sum, bytes) as nvidia-smi tells them."""
    if not gpus:
        return None, None
    query = "--query-gpu=utilization.gpu,memory.used"
    addresses = _addresses()
    chosen = ",".join(addresses.get(gpu, str(gpu)) for gpu in gpus)
    try:
        told = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits", "-i", chosen],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None, None
    rows = [line.partition(",") for line in told.splitlines()]
    utilization = _numbers(row[0] for row in rows)
    memory = _numbers(row[2] for row in rows)
    return (
        sum(utilization) // len(utilization) if utilization else None,
        sum(memory) << 20 if memory else None,
    )


def _addresses() -> dict[int, str]:
    """The PCI addresses of GPUs by the numbers of their device files.

    nvidia-smi has numbers of its own: it leaves out what it cannot open, and follows the addresses.
    """
    found = {}
    for path in DRIVER_FOLDER.glob("*/information"):
        with contextlib.suppress(OSError):
            minor = _MINOR.search(path.read_text("utf-8", "replace"))
            if minor:
                found[int(minor[1])] = path.parent.name
    return found


def _numbers(fields: Iterable[str]) -> list[int]:
    """Those that are numbers: a GPU that is divided (MIG) has no utilization, but "[N/A]"."""
    return [int(field) for field in fields if field.strip().isdecimal()]


def listens(init: int | None, port: int) -> bool:
    """Whether a process of the run listens on TCP ``port``.

    On a shared network the port may belong to anybody, and nobody else's must be reached.
    """
    if init is None:
        return False
    sockets = _listening(init, port)
    return bool(sockets) and any(sockets & _sockets_of(pid) for pid in watching.processes(init))


def _listening(init: int, port: int) -> set[str]:
    """Inodes of the sockets that listen on ``port`` in the network of ``init``."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{init}/net/{name}") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _sockets_of(pid: int) -> set[str]:
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{fd}")
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found
