"""What this command's own standard input is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_STDIN = 0


def has_input() -> bool:
    """Whether standard input is something to pass on: a pipe, a file, a socket.

    A terminal's keys are not (that is what ``-t`` is for), and /dev/null has nothing.
    """
    try:
        found = os.fstat(_STDIN)
    except OSError:
        return False  # It is closed.
    if stat.S_ISCHR(found.st_mode):
        return not os.isatty(_STDIN) and found.st_rdev != Path(os.devnull).stat().st_rdev
    return not stat.S_ISDIR(found.st_mode)
