"""A program on a real pseudo-terminal, as a person at a keyboard drives it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time
from typing import Self

PATIENCE = 60.0


class Terminal:
    """Runs a command; ``expect`` what it shows, ``type`` keys, and ``wait`` for its exit code."""

    def __init__(self, command: list[str], *, env: dict[str, str], rows: int, columns: int) -> None:
        self.screen = ""
        self._seen = 0
        self._master, slave = os.openpty()
        self.resize(rows, columns)
        self._process = subprocess.Popen(
            command,
            stdin=slave, stdout=slave, stderr=slave,
            env={**env, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def resize(self, rows: int, columns: int) -> None:
        """Like dragging the window's corner: the kernel tells the program by SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> None:
        """Wait until ``text`` appears after what was expected before."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.screen.find(text, self._seen)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} never came; on the screen:\n{self.screen}")
        self._seen = found + len(text)

    def wait(self) -> int:
        """Read until the program ends; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(timeout=PATIENCE)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came in time; on the screen:\n{self.screen}")
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # EIO: the program has closed its side
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)
