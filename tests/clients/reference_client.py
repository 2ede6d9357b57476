"""One user's reference client: a version, a home folder, a login."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from tests.clients.terminal import Terminal
from tests.clients.warm import Programs, surroundings

PATIENCE = 150.0  # seconds, for what takes one where nothing else runs
# Nothing is asked of the outside world: no statistics, no look for a newer version.
QUIET = ("--skip-stats", "--disable-pypi-version-check")
JOB_ID = re.compile(r"job-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Outcome(msgspec.Struct, frozen=True):
    """What a finished command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def job_id(self) -> str:
        """The first job id on standard output."""
        match = JOB_ID.search(self.out)
        assert match, f"no job id in: {self}"
        return match.group()


class Started:
    """A command that goes on: its output line by line, then its end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdout: IO[str] = process.stdout
        self.seen: list[str] = []
        self.errors: list[str] = []
        # Somebody must read it, or a full pipe would stop the client.
        self._reader = threading.Thread(target=self.errors.extend, args=(process.stderr,))
        self._reader.start()

    def expect(self, text: str) -> str:
        """Wait for a line of standard output with ``text`` in it."""
        for line in self._stdout:
            self.seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} never came: {self.seen} {self.errors}")

    def wait(self) -> Outcome:
        self.seen.extend(self._stdout)
        code = self._process.wait(timeout=PATIENCE)
        self._reader.join()
        return Outcome(code, "".join(self.seen), "".join(self.errors))

    def interrupt(self) -> Outcome:
        """Ctrl-C."""
        self._process.send_signal(2)
        return self.wait()


class ReferenceClient:
    """``neuro`` of one version, with its home folder; ``user`` and ``url`` are of its login."""

    def __init__(self, version: str, programs: Programs, home: Path, url: str, user: str) -> None:
        self.version = version
        self.programs = programs
        self.home = home
        self.url = url
        self.user = user
        self.config = home / "config"
        home.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str, ok: bool = True, **variables: str) -> Outcome:
        """Run a command to its end; with ``ok`` it must succeed."""
        done = subprocess.run(
            self.programs.warm("neuro", *QUIET, *arguments),
            env=self.variables(**variables),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
        )
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert outcome.code >= 0, f"ended by a signal, which no client does: {outcome}"
        assert not ok or outcome.code == 0, outcome
        return outcome

    def submit(self, *arguments: str) -> str:
        """``neuro run --detach``; the job's id."""
        return self.run("-q", "run", "--detach", *arguments).out.strip()

    @contextmanager
    def started(self, *arguments: str) -> Iterator[Started]:
        """A command that is read while it runs; it is gone after the context."""
        # A timer, not a timeout: reading a line of a silent client has none of its own.
        process = subprocess.Popen(
            self.command(*arguments),
            env=self.variables(PYTHONUNBUFFERED="1"),
            cwd=self.home,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            yield Started(process)
        finally:
            alarm.cancel()
            process.kill()
            process.wait()

    def terminal(self, *arguments: str, rows: int = 40, columns: int = 120) -> Terminal:
        """The command on a terminal of this size."""
        return Terminal(self.command(*arguments), env=self.variables(), rows=rows, columns=columns)

    def status(self, job: str) -> dict[str, str]:
        """The rows of ``neuro status``, by their titles."""
        rows: dict[str, str] = {}
        for line in self.run("status", job).lines:
            title, _, value = line.strip().partition("  ")
            rows.setdefault(title, value.strip())
        return rows

    def command(self, *arguments: str) -> list[str]:
        """The command as a whole process."""
        return self.programs.whole("neuro", *QUIET, *arguments)

    def variables(self, **more: str) -> dict[str, str]:
        return {
            **surroundings(),
            "HOME": str(self.home),
            "NEUROMATION_CONFIG": str(self.config),
            "COLUMNS": "200",
            "BROWSER": "true",
            **more,
        }
