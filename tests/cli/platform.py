"""The command line as a person uses it: a home folder, a real server, a real terminal."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests import commands
from tests.server_process import end_jobs

NEURO = [sys.executable, "-m", "neuro.cli"]
PATIENCE = 60.0


class Home:
    """A person's home folder with its own data folder; nobody is logged in at first."""

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        """``prefix`` is what commands are run by."""
        self.folder = folder
        self.prefix = prefix
        self.data_dir = folder / "data"
        self.config_dir = folder / ".neuro"
        self.work_dir = folder / "work"
        self.work_dir.mkdir(parents=True)
        self.data_dir.mkdir()
        # A job that ignores SIGTERM, as `sleep` does where it is the first process, must not wait.
        (self.data_dir / "server.toml").write_text("stop_grace_seconds = 0.1\n")

    def environment(self, **more: str) -> dict[str, str]:
        left_out = ("NEURO_", "NEUROMATION_", "NO_COLOR", "XDG_", "COMP_", "_NEURO", "COLUMNS")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        own = {"HOME": str(self.folder), "NEURO_DATA_DIR": str(self.data_dir), "TERM": "xterm"}
        own["NEURO_ENGINE"] = "sandbox"  # whatever else the machine has
        own["https_proxy"] = "http://127.0.0.1:9"  # public registries are out of reach
        return kept | own | more

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run ``neuro`` with these words to its end."""
        if not self.prefix:
            return commands.run(
                "neuro.cli",
                words,
                environment=self.environment(**environment),
                folder=self.work_dir,
                seconds=PATIENCE,
            )
        return subprocess.run(
            [*self.prefix, *NEURO, *words],
            env=self.environment(**environment),
            cwd=self.work_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def ok(self, *words: str, **environment: str) -> str:
        """Run ``neuro``, which must succeed; its standard output."""
        done = self.run(*words, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def with_platform(self) -> Iterator[Self]:
        """The platform runs; at the end its jobs are over, and it is stopped."""
        self.ok("up", "--port", "0")
        yield self
        self.end_jobs()
        self.ok("down")

    def end_jobs(self) -> None:
        """Stop what is active, and wait for its end, without a process for it after each test."""
        login = json.loads((self.data_dir / "run" / "owner.json").read_text())
        end_jobs(login["url"], login["token"])

    def start(self, *words: str) -> Terminal:
        """Run ``neuro`` with pipes in place of a terminal, and watch it."""
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [*NEURO, *words],
            env=self.environment(),
            cwd=self.work_dir,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
        os.close(writer)
        return Terminal(process, reader)

    def terminal(
        self,
        *words: str,
        rows: int = 24,
        columns: int = 100,
        program: Sequence[str] = NEURO,
        cwd: Path | None = None,
        **environment: str,
    ) -> Terminal:
        """Run ``neuro``, or another program, in a terminal of its own."""
        ours, theirs = pty.openpty()
        _set_size(ours, rows, columns)
        process = subprocess.Popen(
            [*program, *words],
            env=self.environment(**environment),
            cwd=cwd or self.work_dir,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        return Terminal(process, ours)


def _set_size(number: int, rows: int, columns: int) -> None:
    fcntl.ioctl(number, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """A running command, what it shows and the keys that are pressed."""

    def __init__(self, process: subprocess.Popen[bytes], number: int) -> None:
        self.process = process
        self._number = number
        self.shown = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._number)

    def until(self, text: str, patience: float = PATIENCE) -> str:
        """Wait until ``text`` is shown; all that was shown up to there since the last call."""
        deadline = time.monotonic() + patience
        while text not in self.shown:
            assert self._read(deadline), f"{text!r} never came; shown: {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def _read(self, deadline: float) -> bool:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._number], [], [], left)[0]:
            return False
        try:
            data = os.read(self._number, 65536)
        except OSError:  # What Linux says when the other side of a terminal is closed.
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)

    def press(self, keys: str) -> None:
        os.write(self._number, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the kernel tells the command."""
        _set_size(self._number, rows, columns)

    def interrupt(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def end_by(self, keys: str) -> int:
        """Press keys until the command ends, as a person would; its exit code.

        A prompt is written and answered in C: Python goes on waiting after a Ctrl-C in between.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            self.press(keys)
            try:
                return self.process.wait(2)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"{keys!r} does not end it: {self.shown!r}"

    def interrupt_other_thread(self) -> None:
        """Have the kernel give SIGINT to a thread that is not the main one."""
        process = self.process.pid
        threads = [int(thread) for thread in os.listdir(f"/proc/{process}/task")]
        other = next(thread for thread in threads if thread != process)
        assert ctypes.CDLL(None).tgkill(process, other, signal.SIGINT) == 0

    def end(self) -> int:
        """Wait for the command's end; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)
