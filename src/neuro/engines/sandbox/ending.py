"""How a run ended, from what is known when its last process is gone. No effects here."""

from __future__ import annotations

import os
import re
import signal as signals
from dataclasses import dataclass
from typing import Any, Self

from neuro.engines.sandbox import launcher

COMPLETED, ERROR, OUT_OF_MEMORY = "completed", "error", "out_of_memory"
CANNOT_START, NOT_READY, LOST = "cannot_start", "not_ready", "lost"
VOLUME_NOT_READY = "volume_not_ready"
IMAGE_PULL, INVALID_IMAGE = "image_pull", "invalid_image"
DISK_LIMIT = "disk_limit"

# In place of the exit code of a command that could not begin, and may be begun again.
_TRY_AGAIN = {launcher.NOT_READY: NOT_READY, launcher.VOLUME_NOT_READY: VOLUME_NOT_READY}
_TAKEN = re.compile(rb"[Aa]ddress already in use|EADDRINUSE|port is already (?:in use|allocated)")
_TERMINATED, _KILLED = 143, 137


@dataclass(frozen=True)
class Ending:
    """How a run ended: the part of an exit record that is decided."""

    exit_code: int | None
    cause: str
    message: str | None = None

    @classmethod
    def cannot_start(cls, reason: str) -> Ending:
        """The command was never run."""
        return cls(None, CANNOT_START, reason)

    @classmethod
    def not_ready(cls, reason: str) -> Ending:
        """The command was never run, and could be: this machine was not ready for any."""
        return cls(None, NOT_READY, reason)


@dataclass(frozen=True)
class ExitRecord:
    """What is written of a run that is over, and told to whoever is connected to it.

    ``at`` and ``started`` are nanoseconds since 1970; ``output_bytes`` is the size of the job's
    log as it is kept, ``peak_memory`` the most bytes that the run had at once. The names are those
    in the file: runs of one version end under another.
    """

    at: int
    started: int | None
    output_bytes: int
    exit_code: int | None
    cause: str
    message: str | None
    peak_memory: int | None = None

    @classmethod
    def of(
        cls,
        ending: Ending,
        at: int,
        started: int | None = None,
        output_bytes: int = 0,
        peak_memory: int | None = None,
    ) -> Self:
        """The record of an ending."""
        decided = ending.exit_code, ending.cause, ending.message
        return cls(at, started, output_bytes, *decided, peak_memory)

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """The record that ``as_json`` made; None where anything of it is missing or damaged."""
        if not isinstance(value, dict):
            return None
        known: dict[str, Any] = {"peak_memory": None}  # which earlier versions did not write
        known |= {name: value[name] for name in _TYPES if name in value}
        whole = all(isinstance(known.get(name, ...), type_) for name, type_ in _TYPES.items())
        return cls(**known) if whole else None

    @property
    def may_begin_again(self) -> bool:
        """Whether it is as if the run had never been asked for."""
        return self.cause in (NOT_READY, VOLUME_NOT_READY)

    def as_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        return {**vars(self)}


_TYPES = {
    **{"at": int, "started": int | None, "output_bytes": int},
    **{"exit_code": int | None, "cause": str, "message": str | None, "peak_memory": int | None},
}


def conclude(
    *,
    status: int,
    started: bool,
    stopping: bool,
    killed: bool,
    out_of_memory: bool,
    shared_network: bool,
    refusal: tuple[int, str] | None,
    last_output: bytes,
    disk_excess: str | None = None,
    signal: int | None = None,
) -> Ending:
    """The ending. ``status`` is the wait status of the command, or of its init if that was killed.

    ``killed`` is whether we did that. ``refusal`` is why the command could not begin, with the exit
    code for it, or what the launcher says for a machine or a volume that is not ready.
    ``last_output`` is the end of what the run wrote. ``disk_excess`` is what ``disk`` says of a run
    that was killed for the size of its private files. ``signal`` is what ended the command, if one
    did.
    """
    code = os.waitstatus_to_exitcode(status)
    if not started:
        if stopping:
            return Ending(_TERMINATED, ERROR, "it was stopped before it began")
        if refusal is not None:
            code, reason = refusal
            if code in _TRY_AGAIN:
                return Ending(None, _TRY_AGAIN[code], reason)
            return Ending(code, CANNOT_START, reason)
        return Ending.cannot_start("its processes were killed before the command began")
    if out_of_memory and code != 0:
        return Ending(code if code > 0 else _KILLED, OUT_OF_MEMORY, "the memory limit was reached")
    if disk_excess is not None and code != 0:
        return Ending(code if code > 0 else _KILLED, DISK_LIMIT, disk_excess)
    if code < 0 and not killed:
        return Ending(None, LOST, f"the sandbox's own process was killed by {signal_name(-code)}")
    if code < 0:
        return Ending(_KILLED, ERROR)
    if code == 0:
        return Ending(0, COMPLETED)
    if signal is not None and not stopping:
        return Ending(code, ERROR, f"killed by {signal_name(signal)}")
    if shared_network and _TAKEN.search(last_output):
        # A hint: output is the user's, and decides neither the cause nor the code.
        return Ending(
            code,
            ERROR,
            "its last lines tell of a port in use: on this machine jobs share the host's network,"
            " so no two of them can listen on the same port",
        )
    return Ending(code, ERROR)


def signal_name(number: int) -> str:
    """``SIGSEGV``; a real-time signal that has no name of its own by its number."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
