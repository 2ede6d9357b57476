"""Shells as people type in them: what a program is called with after keys, tabs among them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from neuro.cli.completion import script, variable
from tests.cli.platform import Home

_CALLED = "WAS CALLED"


def need(name: str) -> None:
    """Skip the test on a machine without that shell; CI has both."""
    if not (shutil.which(name) or os.environ.get("CI")):
        pytest.skip(f"{name} is not installed")


class Shell:
    """An interactive bash or zsh that knows one program, with completion."""

    def __init__(
        self, name: str, person: Home, folder: Path, program: str, words: Sequence[str]
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.name, self._person, self._program = name, person, program
        self._rc = folder / f".{name}rc"
        self._said = folder / "said"
        launcher = folder / program
        tell = f"import json, sys; open({str(self._said)!r}, 'w').write(json.dumps(sys.argv[1:]))"
        launcher.write_text(
            f'#!/bin/sh\n[ -n "${variable(program)}" ] && exec {shlex.join(words)}\n'
            f'{sys.executable} -c {shlex.quote(tell)} "$@"; echo {_CALLED}\n'
        )
        launcher.chmod(0o755)
        first = "autoload -U compinit; compinit -u -D\n" if name == "zsh" else ""
        self._rc.write_text(f"{first}PATH={folder}:$PATH\n{script(name, program)}PS1='READY> '\n")

    def called(self, keys: str, cwd: Path) -> list[str]:
        """Type the program's name, then keys, then Enter; the words that it was called with."""
        start = ["bash", "--noprofile", "--rcfile", str(self._rc), "-i"]
        if self.name == "zsh":
            start = ["env", f"ZDOTDIR={self._rc.parent}", "zsh", "-i"]
        with self._person.terminal(program=start, cwd=cwd) as shell:
            shell.until("READY> ")
            shell.press(f"{self._program} {keys}\r")
            shell.until(_CALLED)
        words: list[str] = json.loads(self._said.read_text())
        return words
