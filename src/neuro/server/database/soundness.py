"""A look at the database before it is used, where the server did not end by itself the last time.

A power loss or a broken disk leaves a damaged page that nobody meets for weeks, while backups with
the same damage replace the good ones. A marker in the data folder says that a server is at work;
one that is there at the start is of a server that was killed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from neuro.domain.errors import Conflict, InvalidInput
from neuro.engines.base import EngineFault
from neuro.server.database.engine import Database, damaged, told_plainly

log = structlog.get_logger("neuro.server")

CHECK_SECONDS = 5.0
_STEPS = 10_000  # of SQLite's machine between two looks at the clock: about a millisecond


@contextlib.contextmanager
def at_work(database: Database, marker: Path, seconds: float = CHECK_SECONDS) -> Iterator[None]:
    """Around the use of a database: look at it if ``marker`` was left over, and leave it until the
    end. What may be the database's own fault leaves it for the next start.

    Raises Unavailable for a damaged database. A look takes ``seconds`` at most; what it finds in
    that time is what it finds.
    """
    if marker.exists() and database.path is not None:
        check(database, database.path, seconds)
    with contextlib.suppress(OSError):  # A full disk is no reason not to start.
        marker.touch(mode=0o600)
    try:
        yield
    except (Conflict, InvalidInput, EngineFault):  # A start that was refused ends in order.
        marker.unlink(missing_ok=True)
        raise
    marker.unlink(missing_ok=True)


def check(database: Database, path: Path, seconds: float) -> None:
    """Raise Unavailable, with what is wrong, for a SQLite database that is damaged."""
    end = time.monotonic() + seconds
    with told_plainly(path), database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            found = driver.execute("PRAGMA quick_check(1)").fetchone()
        except Exception as error:
            if "interrupted" not in str(error):
                raise
            log.warning(
                "the check of the database took too long, and was given up", seconds=seconds
            )
            return
        finally:
            driver.set_progress_handler(None, 0)
    if found is not None and found[0] != "ok":
        raise damaged(path, " ".join(str(found[0]).split()))
