"""A real server in a process of its own: started, killed, started again."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.warm import Fork

# Small presets, so that a machine of two cores runs many jobs side by side.
SETTINGS = """
stop_grace_seconds = 2
[capacity]
cpu = 64
memory = "64G"
[[presets]]
name = "cpu-small"
cpu = 0.5
memory = "256M"
[[presets]]
name = "cpu-large"
cpu = 60
memory = "4G"
[[presets]]
name = "cpu-huge"
cpu = 1000
memory = "4G"
"""


class ServerProcess:
    """``python -m neuro.server run`` on a port of its own; the port stays across restarts.

    ``program`` is a file that Python runs instead of that, and its first arguments. Where ``forks``
    is set, as the tests have it, they are forks: see ``tests.warm``. ``through`` is a command that
    runs what follows it.
    """

    forks = False

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: str = SETTINGS,
        database: str | None = None,
        program: Sequence[str] = (),
        forks: bool | None = None,
        through: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.port = 0
        self._database = database
        self._program = program
        self._through = through
        if forks is not None:
            self.forks = forks
        self._process: subprocess.Popen[bytes] | Fork | None = None
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "server.toml").write_text(settings)

    def start(self) -> None:
        """Return once it is ready. Raises RuntimeError with what it said instead."""
        reader, writer = multiprocessing.Pipe(duplex=False)
        arguments = ["run", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        arguments += ["--database", self._database] if self._database else []
        arguments += ["--engine", "sandbox"]  # whatever else the machine has
        with reader, writer:
            # The linker reads this when a program begins, and never again.
            if self.forks and "LD_PRELOAD" not in os.environ:
                log = self.data_dir / "server.log"
                self._process = Fork([*self._program, *arguments], writer, log)
            else:
                self._process = self._begin(arguments, writer.fileno())
            writer.close()
            with open(reader.fileno(), closefd=False) as ready:
                line = ready.readline()
        message: dict[str, Any] = json.loads(line) if line else {"error": self.log()}
        if "error" in message:
            self._process.wait()
            raise RuntimeError(message["error"])
        self.url: str = message["url"]
        self.port = int(self.url.split(":")[2].split("/")[0])

    def _begin(self, arguments: list[str], ready: int) -> subprocess.Popen[bytes]:
        program = self._program or ("-m", "neuro.server")
        with (self.data_dir / "server.log").open("ab") as log:
            return subprocess.Popen(
                [*self._through, sys.executable, *program, *arguments, "--ready-fd", str(ready)],
                pass_fds=[ready],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def database_url(self) -> str:
        """Where the server keeps its records."""
        return self._database or f"sqlite:///{self.data_dir / 'neuro.db'}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def token(self) -> str:
        login = json.loads((self.data_dir / "run" / "owner.json").read_text())
        return str(login["token"])

    @property
    def user(self) -> str:
        return str(json.loads((self.data_dir / "run" / "owner.json").read_text())["user"])

    def log(self) -> str:
        return (self.data_dir / "server.log").read_text()

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """``kill -9``."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=20)


@contextlib.contextmanager
def running_server(data_dir: Path, **options: Any) -> Iterator[ServerProcess]:
    """A server that is up inside the context; its jobs end with it."""
    server = ServerProcess(data_dir, **options)
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            try:
                end_jobs(server.url, server.token)
            finally:
                server.stop()


def end_jobs(url: str, token: str) -> None:
    """Kill everybody's jobs, and wait for their end. ``token`` is an administrator's."""
    from neuro.client import Client
    from neuro.client.blocking import run
    from neuro.domain.jobs import ACTIVE, JobFilter

    async def kill() -> None:
        async with Client.blocking(url, token) as client:
            active = [job.id async for job in client.jobs.list(JobFilter(status=sorted(ACTIVE)))]
            for job_id in active:
                await client.jobs.kill(job_id)
            for job_id in active:
                # The log's end is the job's end.
                async for _ in client.jobs.logs(job_id):
                    pass

    run(kill())
