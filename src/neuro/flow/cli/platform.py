"""Commands of ``neuro``, run inside this process with the words of their command line."""

from __future__ import annotations

import click

from neuro.cli.lazy import Entry, load
from neuro.cli.main import JOB, STORAGE
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.failures import Delegated

RUN, STATUS, LOGS, ATTACH, BROWSE = (
    JOB[name] for name in ("run", "status", "logs", "attach", "browse")
)
COPY, MAKE_FOLDER, REMOVE = (STORAGE[name] for name in ("cp", "mkdir", "rm"))


def neuro(context: FlowContext, entry: Entry, *words: str, name: str) -> int:
    """Run a command of ``neuro``, called ``name`` where it speaks of itself; its exit code.

    Raises Delegated where it fails.
    """
    command = load(entry)
    try:
        with command.make_context(f"neuro {name}", list(words), obj=context) as inner:
            result = command.invoke(inner)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, BrokenPipeError):
        raise
    except Exception as error:
        raise Delegated(str(error)) from error
    return result if isinstance(result, int) else 0
