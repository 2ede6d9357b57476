"""The database as the services see it: functions of a connection, run in short transactions.

SQLAlchemy Core runs synchronously in worker threads. On SQLite one thread writes, so writers never
meet ``database is locked``, and two read beside it; on PostgreSQL a pool of threads does both.
WAL with ``synchronous=NORMAL`` is consistent after a crash; a power loss may cost the last moments.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    InternalError,
    InvalidatePoolError,
    OperationalError,
)
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from neuro.domain.errors import InvalidInput, Unavailable
from neuro.server.threads import FairExecutor

T = TypeVar("T")

log = structlog.get_logger("neuro.database")

SQLITE_READERS = 2
POSTGRES_CONNECTIONS = 8
# A host that goes silent must not hold the threads for longer: seconds, and milliseconds.
_SILENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# PostgreSQL ends a transaction whose server says nothing in the middle of it for so long: it is
# frozen, or its machine is gone. Each of the other servers would wait for the rows that it holds,
# with one thread after the other, and in the end answer nobody. As long as a lease lives, so that
# whoever takes one waits no longer for this.
IDLE_MILLISECONDS = 2000
_NEW = "new"  # of a connection that nothing was asked of yet
_STOOD_STILL = "25P03"  # the state that PostgreSQL tells then
_BEGIN = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {IDLE_MILLISECONDS}"


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file."""
    return f"sqlite:///{path}"


class Database:
    """Runs functions of a connection in transactions, off the event loop."""

    def __init__(self, url: str) -> None:
        """``url`` as SQLAlchemy writes it: ``sqlite:///PATH`` or ``postgresql://USER@HOST/NAME``.

        Raises InvalidInput for another one, and where its driver is missing.
        """
        if url.startswith(("postgresql://", "postgres://")):
            url = "postgresql+psycopg://" + url.split("://", 1)[1]
        check_url(url)
        self._is_away = False
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self.path = Path(url.partition("///")[2]) if self.is_sqlite else None
        writers, readers = (1, SQLITE_READERS) if self.is_sqlite else (POSTGRES_CONNECTIONS, 0)
        self.engine = _engine(url, writers + readers)
        # In turns: what one person has many of, the largest manifests for example, takes seconds.
        self._writers = FairExecutor(writers, "database-write")
        self._readers = FairExecutor(readers, "database-read") if readers else self._writers

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run ``query`` with a connection whose changes, if any, are thrown away.

        Raises Unavailable for a database that does not answer; so does ``write``.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._run_read, query)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run ``change`` in one transaction; it is committed when ``change`` returns.

        On SQLite changes run one after the other, so a check and what follows it are safe.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writers, self.write_now, change)

    def _run_read(self, query: Callable[[Connection], T]) -> T:
        with self._outage(), told_plainly(self.path), self.engine.connect() as connection:
            return query(connection)

    def write_now(self, change: Callable[[Connection], T]) -> T:
        """``write`` for callers that have no event loop (start-up, commands)."""
        with self._outage(), told_plainly(self.path), self.engine.begin() as connection:
            return change(connection)

    @contextmanager
    def _outage(self) -> Iterator[None]:
        """Log when the database begins to fail, and when it answers again."""
        try:
            yield
        except Unavailable as error:
            if not self._is_away:
                self._is_away = True
                log.error("the database cannot be used", error=error.message)
            raise
        if self._is_away:
            self._is_away = False
            log.info("the database can be used again")

    def close(self) -> None:
        """Wait for what runs, then close every connection."""
        self._readers.shutdown()
        self._writers.shutdown()
        self.engine.dispose()


@contextmanager
def told_plainly(path: Path | None) -> Iterator[None]:
    """Raise Unavailable, with what to do, for an error of the database itself.

    ``path`` is where its file is, if it has one.
    """
    try:
        yield
    except (DatabaseError, sqlite3.DatabaseError) as error:
        # What prepares a new connection speaks to the driver itself.
        origin = error.orig if isinstance(error, DatabaseError) else error
        if _is_damage(origin):
            raise damaged(path, str(origin)) from error
        state = getattr(origin, "sqlstate", None)
        if state == _STOOD_STILL:
            raise Unavailable(
                "The server stood still in the middle of a change, and the database has undone it:"
                " try again."
            ) from error
        # Behind a pooler that ends with one answer more than the driver expects, without a state.
        is_out_of_step = isinstance(error, InternalError) and state is None
        if not is_out_of_step and not isinstance(
            error, OperationalError | sqlite3.OperationalError
        ):
            raise
        if "full" in str(origin) or "No space" in str(origin):
            raise Unavailable(
                "The server's disk is full: nothing was changed. Free some space and try again."
            ) from error
        raise _no_answer(path, origin) from error


def _no_answer(path: Path | None, error: BaseException | None) -> Unavailable:
    where = f" {path}" if path is not None else ""
    return Unavailable(f"The server's database{where} does not answer: {_cause(error)}")


def _cause(error: BaseException | None) -> str:
    # Drivers write several lines, of which only the last may end with a full stop.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ended = [line if line[-1] in ".:;,?!" else f"{line}." for line in lines[:-1]]
    return " ".join([*ended, *lines[-1:]])


def _is_damage(error: BaseException | None) -> bool:
    # SQLite's number, of which the rest says where in a page; PostgreSQL's state.
    number = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return number in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or getattr(
        error, "sqlstate", None
    ) in ("XX001", "XX002")


def damaged(path: Path | None, cause: str) -> Unavailable:
    """What to say of a database that is damaged. Trying again does not help; a person can."""
    if path is None:
        return Unavailable(
            f"The server's database is damaged ({cause}). Stop the server (`neuro down`) and"
            " restore the database from a backup; PostgreSQL's own log says more."
        )
    return Unavailable(
        f"The server's database {path} is damaged ({cause}). Stop the server (`neuro down`),"
        f" remove {path}-wal and restore {path} from a backup. `sqlite3 {path} 'PRAGMA"
        f" integrity_check'` says what is damaged, `sqlite3 {path} .recover` saves what can be"
        " read."
    )


def check_url(url: str) -> None:
    """Raise InvalidInput, saying what to do, for what no database can be opened with."""
    scheme = url.partition("://")[0]
    if scheme not in ("sqlite", "postgresql+psycopg"):
        raise InvalidInput(
            f"The database's address begins with '{scheme[:40]}': it must be a URL such as"
            " postgresql://user@host/name, or sqlite:///PATH."
        )
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput(
            "The database's address cannot be read: it must be a URL such as"
            " postgresql://user@host/name, with %XX for special characters of a password."
        ) from None
    if scheme != "sqlite" and find_spec("psycopg") is None:
        raise InvalidInput(
            "The driver of PostgreSQL is not installed here: pip install"
            " '/path/to/clone[server,postgres]', with the path of a clone of the repository."
        )


def _engine(url: str, connections: int) -> Engine:
    # A queue pool also for SQLite: its default would open a connection for every transaction.
    # ``check_same_thread`` off, because the pool hands a connection to one thread at a time.
    options: dict[str, Any] = {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 2}
    # Values of a statement that failed would be logged: among them are the environments of jobs.
    options["hide_parameters"] = True
    if url.startswith("sqlite"):
        options["connect_args"] = {"check_same_thread": False, "timeout": 30}
    else:
        # A statement that the server prepared belongs to one connection of it, which a pooler such
        # as pgbouncer hands to somebody else after each transaction.
        # ``autocommit``, as ``_begin_postgres`` says when a transaction begins: with each checkout.
        options["connect_args"] = {
            "autocommit": True,
            "prepare_threshold": None,
            **limits_of_silence(make_url(url)),
        }
    engine = create_engine(url, **options)
    if url.startswith("sqlite"):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _mark_new)
        event.listen(engine, "checkout", _begin_postgres)
    return engine


def limits_of_silence(url: URL) -> dict[str, Any]:
    """When PostgreSQL's driver gives up a host that says nothing; what the URL says goes first."""
    return {name: limit for name, limit in _SILENCE.items() if name not in url.query}


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transaction control starts transactions late and never for reads;
    # ``_begin_sqlite`` does it instead, so that a read sees one state of the database.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "cache_size=-8000",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _mark_new(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info[_NEW] = True


def _begin_postgres(connection: Any, record: ConnectionPoolEntry, _fairy: object) -> None:
    # One message says all, and shows whether the connection is still good. Nothing of it is the
    # session's: that is a pooler's, which lends it to others.
    is_new = record.info.pop(_NEW, False)
    try:
        connection.execute(_BEGIN)
    except Exception as error:
        if not is_new:
            raise InvalidatePoolError from error  # All others are as old; a new one is made.
        raise _no_answer(None, error) from error


def keep_open(connection: Connection) -> None:
    """Let this transaction stand still for longer than others may: it works on much at once."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
