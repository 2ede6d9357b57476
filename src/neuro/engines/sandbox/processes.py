"""A process as it is written down, to be known again by whoever cleans up after a run."""

from __future__ import annotations

from neuro.engines.sandbox.kernel import process_start


def identity(pid: int | None) -> list[int | None] | None:
    """What to write down of a process: its pid may be another one's later, its start is its own."""
    return [pid, process_start(pid)] if pid else None


def same_process(written: object) -> int | None:
    """The pid of a process that was written down, if it is still that process."""
    match written:
        case [int(pid), int(start)] if process_start(pid) == start:
            return pid
    return None
