"""A real PostgreSQL server for tests: made from the machine's own binaries, thrown away after."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS = 30
# Nothing here survives the test run, so nothing has to reach the disk.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "timezone": "UTC",
}


@cache
def find_binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: on the PATH, or the newest of Debian's."""
    folders = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(versions, key=lambda path: _version(path.parent.name), reverse=True)
    for folder in folders:
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres")):
            return folder
    return None


def _version(name: str) -> float:
    return float(name) if re.fullmatch(r"\d+(\.\d+)?", name) else 0.0


class PostgresServer:
    """A server in a folder of its own. It listens on a Unix socket only, so no port is taken.

    PostgreSQL refuses to run as root, so root runs it as ``postgres`` or ``nobody``; the folder
    is open to everybody, because the tests' servers may run as yet another user.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binaries = find_binaries()
        if binaries is None:
            raise RuntimeError("PostgreSQL's initdb and postgres are not on this machine.")
        # Directly under /tmp: a socket's path may have 107 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="neuro-postgres-", dir="/tmp"))
        try:
            self._make(binaries)
            self.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def url(self, database: str) -> str:
        """The URL of a database, as the server's setting takes it."""
        return f"postgresql://neuro@/{database}?host={self._folder}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database, dropped at the end with whoever is still in it."""
        url = self.create()
        try:
            yield url
        finally:
            self._execute(f'DROP DATABASE "{_name(url)}" WITH (FORCE)')

    def create(self) -> str:
        """The URL of a fresh, empty database that stays until the server goes."""
        name = f"test_{uuid.uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self.url(name)

    def empty(self, url: str) -> None:
        """Drop a database that nobody is connected to, and create it again."""
        self._execute(f'DROP DATABASE "{_name(url)}"')
        self._execute(f'CREATE DATABASE "{_name(url)}" TEMPLATE template0')

    def dump(self, url: str, to: Path) -> None:
        """``pg_dump``, as the administrator's guide has it."""
        command = [self._binaries / "pg_dump", "--format=custom", "--dbname", url]
        with to.open("wb") as file:
            subprocess.run(command, check=True, stdout=file)

    def restore(self, dump: Path, url: str) -> None:
        """``pg_restore``, likewise. Raises CalledProcessError where anything is in its way."""
        command = [self._binaries / "pg_restore", "--exit-on-error", "--dbname", url, dump]
        subprocess.run(command, check=True)

    def _make(self, binaries: Path) -> None:
        self._folder.chmod(0o755)
        self._binaries = binaries
        self._data, self._log = self._folder / "data", self._folder / "log"
        self._data.mkdir(mode=0o700)
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            user = unprivileged_user()
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            os.chown(self._data, user.pw_uid, user.pw_gid)
            self._prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
            self._prefix += ["--clear-groups"]
        # LC_ALL=C is on every machine, and sorts the way SQLite does.
        self._environ = {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(self._folder)}
        options = ["--username=neuro", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        with self._log.open("ab") as output:
            subprocess.run(
                [*self._prefix, binaries / "initdb", "-D", self._data, "--no-sync", *options],
                check=True,
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def start(self) -> None:
        """Return once it answers; after a crash, with what was committed before."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        command = [self._binaries / "postgres", "-D", self._data, "-k", self._folder, *settings]
        prefix = self._prefix
        if shutil.which("setpriv"):
            # The server goes down with pytest, also when pytest is killed.
            prefix = [*(prefix or ["setpriv"]), "--pdeathsig=QUIT"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, *command],
                cwd=self._folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._wait_until_ready(self._log)

    def crash(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if self._process is not None:
            # SIGQUIT: without a checkpoint; those who are connected are thrown out.
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def _wait_until_ready(self, log: Path) -> None:
        import psycopg

        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process is not None
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from error
                time.sleep(0.02)
            else:
                return

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def _stop(self) -> None:
        self.crash()  # Nobody will read what it would still write.
        shutil.rmtree(self._folder, ignore_errors=True)


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("No unprivileged user (postgres or nobody) to run PostgreSQL as.")
