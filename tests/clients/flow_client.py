"""The reference clients' ``neuro-flow`` in a workspace of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.clients.reference_client import PATIENCE, QUIET, Outcome, ReferenceClient


class FlowClient:
    """``neuro-flow`` in a workspace, beside a ``neuro`` that is logged in."""

    def __init__(self, client: ReferenceClient, project: str) -> None:
        self._client = client
        self.version = client.version
        self.user = client.user
        self.project = project
        self.workspace = client.home / project
        (self.workspace / ".neuro").mkdir(parents=True)
        # ``neuro-flow`` knows no options for its ``neuro`` to ask nothing of the outside world.
        self.bin = client.home / "bin"
        self.bin.mkdir()
        neuro = self.bin / "neuro"
        command = shlex.join(client.programs.warm("neuro", *QUIET))
        neuro.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        neuro.chmod(0o755)

    def write(self, name: str, text: str) -> None:
        """Put a flow file into the workspace."""
        (self.workspace / ".neuro" / f"{name}.yml").write_text(text)

    def run(self, *arguments: str, code: int = 0, patience: float = PATIENCE) -> Outcome:
        """Run a command to its end, which must be ``code``."""
        done = subprocess.run(
            self._client.programs.warm("neuro-flow", *arguments),
            env=self.environment(),
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=patience,
        )
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert outcome.code == code, outcome
        return outcome

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on; what it prints is dropped. It is killed if it is still there."""
        with subprocess.Popen(
            self.command(*arguments),
            env=self.environment(),
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def command(self, *arguments: str) -> list[str]:
        """The command as a whole process."""
        return self._client.programs.whole("neuro-flow", *arguments)

    def environment(self) -> dict[str, str]:
        """The variables of its commands."""
        variables = self._client.variables()
        return {**variables, "PATH": f"{self.bin}:{variables.get('PATH', '/usr/bin:/bin')}"}

    def stored(self) -> set[str]:
        """The names of what the storage keeps of this workspace."""
        return set(self._client.run("ls", f"storage:{self.project}").lines)

    def jobs(self) -> dict[str, str]:
        """The rows of ``neuro-flow ps``: job and suffix, then the id of its newest run."""
        rows = re.findall(r"^\s*(\S[^│\n]*?)\s*│[^│\n]*│\s*(\S+)\s*│", self.run("ps").out, re.M)
        return {job: raw_id for job, raw_id in rows if job != "JOB"}
