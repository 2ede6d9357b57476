"""A SQLite database has one server, whichever data folder that one has."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from typing import IO

from neuro.domain.errors import Conflict
from neuro.server.database.engine import Database


@contextlib.contextmanager
def alone(database: Database) -> Iterator[None]:
    """Keep other servers off a SQLite database: nobody would tell them what this one changes.

    Raises Conflict where one is at work on it.
    """
    with contextlib.ExitStack() as stack:
        if database.path is not None:
            # Not on the database itself: to close that would end the locks that SQLite has on it.
            path = database.path.resolve()
            # On a full disk the server starts all the same; a folder that is not there is told by
            # whoever opens the database.
            with contextlib.suppress(OSError):
                lock = stack.enter_context(path.with_name(f"{path.name}.lock").open("ab"))
                _take(lock, database)
        yield


def _take(lock: IO[bytes], database: Database) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Conflict(
            f"Another server works on {database.path}, and a SQLite database has one server. Stop"
            " that one with `neuro down`, or give this one a database of its own (--database)."
            " Several servers need PostgreSQL."
        ) from None
