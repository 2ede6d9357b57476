"""``neuro doctor``: what this machine has for jobs, and what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import MALFUNCTION, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output, terminal_width
from neuro.cli.server.local import check_installed, find_running
from neuro.cli.server.options import data_dir_option, folder_of_current

_PATIENCE = 120.0  # seconds
_SIGNS = {"ok": ("√", "green"), "warning": ("!", "yellow"), "failed": ("×", "red")}

# deploy/apparmor/neuro is this text for the interpreters /opt/neuro/bin/python*.
_PROFILE = """\
# Lets the platform of a plain user make user namespaces, where AppArmor keeps plain users' programs
# from it (Ubuntu 23.10 and newer: kernel.apparmor_restrict_unprivileged_userns). A server that root
# starts does not need it.
#
# The path below is that of the interpreter itself: AppArmor looks at the file, not at links to it.
# So make the environment with an interpreter of its own:
#
#   python3 -m venv --copies /opt/neuro
#
# With a link to /usr/bin/python3 the profile would be for every Python program of the machine.
# `neuro doctor --apparmor` prints this file with the right path. Load it, now and at every boot:
#
#   neuro doctor --apparmor | sudo tee /etc/apparmor.d/neuro
#   sudo apparmor_parser -r /etc/apparmor.d/neuro
#
# It takes nothing away from the interpreter (unconfined) and gives it this one right. Programs that
# it starts inherit that; jobs still cannot make user namespaces: the filter of their system calls
# refuses it.

abi <abi/4.0>,
include <tunables/global>

profile neuro {path} flags=(unconfined) {{
  userns,

  include if exists <local/neuro>
}}
"""


def profile(interpreters: str) -> str:
    """The AppArmor profile for what this pattern matches: absolute, and through no link."""
    return _PROFILE.format(path=f'"{interpreters}"' if " " in interpreters else interpreters)


@click.command(
    "doctor",
    cls=Command,
    examples="""
        neuro doctor
        neuro doctor --json
        neuro doctor --apparmor | sudo tee /etc/apparmor.d/neuro
    """,
)
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--apparmor", is_flag=True, help="Print an AppArmor profile for this installation.")
@pass_context
def command(context: Context, data_dir: Path | None, as_json: bool, apparmor: bool) -> int:
    """Say what this machine has for jobs, and what to install; exit code 1 if jobs cannot run.

    Run it as the user who starts the server. It changes nothing, and a running server goes on.
    """
    if apparmor:
        _print_profile(context.out)
        return 0
    check_installed()
    where = folder_of_current(context, data_dir)
    report = _examine(where)
    if as_json:
        from neuro.cli.render.json_text import document

        context.out.print(document(report))
    else:
        context.out.print(f"{_heading(where)}\n")
        _print(context.out, report)
    return 0 if report["ready"] else 1


def _examine(data_dir: Path) -> dict[str, Any]:
    line = [sys.executable, "-m", "neuro.server.doctor", "--data-dir", str(data_dir)]
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            f"The check of this machine did not end in {_PATIENCE:.0f} seconds.", MALFUNCTION
        ) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Failure(f"The check of this machine failed: {last}", MALFUNCTION)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _heading(where: Path) -> str:
    server = find_running(where)
    if server is not None:
        return f"Data folder {where}: a server runs there, {server.url}."
    if where.is_dir() and not os.access(where, os.R_OK | os.X_OK):
        return f"Data folder {where}: this user may not look into it."
    return f"Data folder {where}: no server runs there."


def _print(out: Output, report: dict[str, Any]) -> None:
    width = max(len(finding["name"]) for finding in report["findings"])
    margin = " " * (width + 4)
    columns = max(60, min(terminal_width() or 100, 100))
    for finding in report["findings"]:
        sign, color = _SIGNS[finding["state"]]
        text = textwrap.wrap(
            finding["text"],
            columns - len(margin),
            break_long_words=False,
            break_on_hyphens=False,
        )
        out.print(f"{out.style(sign, fg=color, bold=True)} {finding['name']:<{width}}  {text[0]}")
        for line in text[1:]:
            out.print(margin + line)
        for line in finding["command"].splitlines():
            out.print(f"{margin}  {out.style(line, bold=True)}")
    if report["ready"]:
        out.print("\nJobs can run on this machine.")
    else:
        out.print("\nJobs cannot run on this machine: see what is marked with ×.")


def _print_profile(out: Output) -> None:
    interpreter = str(Path(sys.executable).resolve())
    own = Path(sys.prefix).resolve() / "bin"
    if Path(interpreter).parent == own:
        interpreter = f"{own}/python*"  # an environment of copies has three of them
    else:
        out.warning(
            f"This environment uses the interpreter {interpreter}: with the profile every program"
            " of that interpreter may make user namespaces. Make an environment with its own"
            " interpreter: python3 -m venv --copies DIR"
        )
    out.print(profile(interpreter), newline=False)
