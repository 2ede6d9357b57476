"""Whether runs can be made here in a given way: one berth is made and taken away again.

It runs in a process of its own, because it enters namespaces that cannot be left.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict

from neuro.engines.sandbox import init, kernel, layout, stage
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.interpreter import PACKAGE_ROOT, python
from neuro.engines.sandbox.launch import Plan, plan_from
from neuro.engines.sandbox.mounts import prove_volumes

_TIMEOUT = 20
_START = (
    "import sys; sys.path.insert(0, {root!r});"
    "from neuro.engines.sandbox.{module} import main; main()"
)


def refusal(plan: Plan) -> str | None:
    """Why runs cannot be made by ``plan``; None where they can."""
    return tried("probing", given=json.dumps(asdict(plan)))


def tried(module: str, *arguments: str, given: str = "") -> str | None:
    """Why ``main`` of a module beside this one fails in a process of its own; None if it does not.

    ``given`` is its standard input. It tells the reason in the last line of its standard error.
    """
    command = [*python(), "-c", _START.format(root=PACKAGE_ROOT, module=module), *arguments]
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            env={},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def main() -> None:
    """Try the plan on standard input; exit code 0, or 1 with the reason on standard error."""
    try:
        is_root = os.geteuid() == 0
        kernel.enter_guard()
        if not is_root:
            # As root of the new user namespace, which the zygote is, too: who may look into a
            # process is decided when its program begins.
            os.execv(sys.executable, sys.orig_argv)
        _try(plan_from(json.load(sys.stdin)))
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)  # noqa: T201 - this is how it answers
        sys.exit(1)


def _try(plan: Plan) -> None:
    init.prepare()
    block = stage.blocks(plan).claim()
    berth = Berth(plan, f"probe-{os.getpid()}", block)
    place = f"{plan.folder}/probe.{os.getpid()}"
    layout.remove_tree(place)
    os.mkdir(place)
    try:
        berth.make(socket.socket())
        berth.occupy(place)
        prove_volumes(place, block)
    finally:
        berth.discard()
        layout.remove_tree(place)
