"""Starting a command beside the run's own, by way of the daemon and a launcher."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Mapping, Sequence

from neuro.engines.docker import door, making
from neuro.engines.docker.api import Daemon
from neuro.engines.sandbox.loop import Loop


def execute(
    loop: Loop,
    daemon: Daemon,
    made: making.Made,
    entrance: door.Door,
    command: tuple[Sequence[str], bool],
    streams: tuple[int, int, int],
    env: Mapping[str, str],
) -> int:
    """Start ``command``, an argv and whether it has a terminal; its process. Raises OSError.

    ``env`` are values for variables of the run that the daemon does not have.

    The loop is told of its end. The run's output waits meanwhile: this takes a tenth of a second.
    """
    argv, tty = command
    word = secrets.token_hex(16)
    making.execute(daemon, made, word, argv, tty=tty)
    visitor = entrance.admit(word)
    told, tell = os.pipe()
    try:
        if tty:
            os.fchown(streams[1], visitor.user, -1)
        process = visitor.give(streams, tell, tty=tty, env=env)
    except OSError:
        visitor.close()
        os.close(told)
        raise
    finally:
        os.close(tell)
    refusal = door.heard(told, argv[0] if argv else "")
    os.close(told)
    if refusal is not None:
        os.write(streams[2], refusal[1].encode("utf-8", "replace") + b"\n")

    def ended(status: int | None) -> None:
        if refusal is not None:
            status = refusal[0] << 8
        loop.end(process, signal.SIGKILL if status is None else status)

    visitor.on_end(loop, ended)
    return process
