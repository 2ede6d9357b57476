"""What this machine lets us do, one thing at a time, each tried in a process of its own.

Whether runs can be made is for ``probing`` to find out; these tell which part is missing where they
cannot. What they enter cannot be left, and nothing of it outlives the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from neuro.engines.sandbox import identities, kernel, probing, seccomp


def refusal(trial: str, *arguments: str) -> str | None:
    """Why a trial below fails here; None where it succeeds."""
    return probing.tried("trials", trial, *arguments)


def main() -> None:
    """Try what the command line names; exit code 0, or 1 with the reason on standard error."""
    _, trial, *arguments = sys.argv
    try:
        _TRIALS[trial](*arguments)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        print(reason, file=sys.stderr)  # noqa: T201 - this is how it answers
        sys.exit(1)


def _user_namespaces() -> None:
    if os.geteuid() == 0:
        os.close(identities.user_namespace(f"0 {identities.FIRST} {identities.BLOCK}"))
    kernel.enter_guard()  # mounts: some machines allow the namespace, and nothing in it


def _mapped_mount(folder: str) -> None:
    volumes = f"{identities.STORAGE} {identities.FIRST} {identities.BLOCK}"
    tree = kernel.copy_tree(folder, recursive=False)
    kernel.set_attributes(tree, 0, identities.user_namespace(volumes))


def _system_calls() -> None:
    seccomp.install(seccomp.program())


_TRIALS: dict[str, Callable[..., None]] = {
    "user-namespaces": _user_namespaces,
    "mapped-mount": _mapped_mount,
    "system-calls": _system_calls,
}
