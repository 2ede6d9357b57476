"""A person with a project: ``neuro-flow`` as whole processes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import commands
from tests.cli.platform import PATIENCE, Home, Terminal

NEURO_FLOW = [sys.executable, "-m", "neuro.flow"]

LIVE = """
kind: live
title: Example
defaults:
  life_span: 1h
volumes:
  code:
    remote: storage:example/code
    mount: /code
    local: code
  results:
    remote: storage:example/results
    mount: /results
    local: results
  elsewhere:
    remote: storage:other
    mount: /other
images:
  own:
    ref: image:own:v1
    context: .
    dockerfile: Dockerfile
    build_args: [A=1]
  public:
    ref: ubuntu
jobs:
  hello:
    image: ubuntu
    volumes: ["${{ volumes.code.ref_ro }}", "${{ volumes.results.ref_rw }}"]
    bash: |
      cat /code/greeting.txt
      cp /code/greeting.txt /results/copy.txt
  fails:
    image: ubuntu
    bash: exit 3
  sends:
    image: ubuntu
    volumes: ["${{ upload(volumes.code).ref_ro }}"]
    bash: cat /code/greeting.txt
  serves:
    image: ubuntu
    detach: true
    http_port: 8080
    cmd: sleep 1000
  asks:
    image: ubuntu
    env:
      ID: ${{ inspect_job("serves").id }}
    bash: echo asked $ID
  waits:
    image: ubuntu
    bash: echo begun; sleep 1000
  multitrain:
    multi: true
    detach: true
    image: ubuntu
    params:
      lr: "1.0"
    bash: echo lr=${{ params.lr }} suffix=${{ multi.suffix }}; sleep 1000
"""


class Person(Home):
    """A person whose working folder is a project's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.project = self.work_dir / "example"
        self.write(".neuro/live.yml", LIVE)
        self.write("code/greeting.txt", "hello from the volume\n")
        (self.project / "results").mkdir()

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def flow(
        self, *words: str, cwd: Path | None = None, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``neuro-flow`` in the project's folder to its end."""
        return commands.run(
            "neuro.flow",
            words,
            environment=self.environment(**environment),
            folder=cwd or self.project,
            stdin=stdin,
            seconds=PATIENCE,
        )

    def flow_ok(self, *words: str, cwd: Path | None = None) -> str:
        """Run ``neuro-flow``, which must succeed; its standard output."""
        done = self.flow(*words, cwd=cwd)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def watch(self, *words: str) -> Iterator[Terminal]:
        """Run ``neuro-flow`` with pipes in place of a terminal, and watch it."""
        reader, writer = os.pipe()
        process = subprocess.Popen(
            [*NEURO_FLOW, *words],
            env=self.environment(),
            cwd=self.project,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
        os.close(writer)
        with Terminal(process, reader) as shown:
            yield shown

    def flow_terminal(self, *words: str, rows: int = 24, columns: int = 100) -> Terminal:
        """Run ``neuro-flow`` in a terminal of its own."""
        return self.terminal(
            *words, rows=rows, columns=columns, program=NEURO_FLOW, cwd=self.project
        )

    def offered(self, *words: str) -> list[str]:
        """What a shell is offered for the last word."""
        done = self.flow(
            _NEURO_FLOW_COMPLETE="bash_complete",
            COMP_WORDS=shlex.join(["neuro-flow", *words]),
            COMP_TEXT=shlex.quote(words[-1]),
        )
        return [shlex.split(line.partition(",")[2])[0] for line in done.stdout.splitlines() if line]
