"""A real pgbouncer in transaction mode before the tests' PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.postgres import START_SECONDS, unprivileged_user

_SETTINGS = """
[databases]
* = host={host}
[pgbouncer]
pool_mode = transaction
auth_type = trust
auth_file = {folder}/users
unix_socket_dir = {folder}
listen_port = 6432
logfile = {folder}/log
pidfile = {folder}/pid
default_pool_size = {pool}
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits,options
"""

# For tests of what one way could do otherwise than the other: sessions, listening, time-outs.
both_ways = pytest.mark.parametrize("shared_database", ["direct", "bouncer"], indirect=True)


def find_program() -> str | None:
    """Debian has it where only root looks."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


class PgBouncer:
    """Passes transactions of many clients on over few connections: none keeps a session.

    ``url(of)`` is that of a database through it, where ``of`` is the direct one.
    """

    def __init__(self, database: str, *, pool: int = 8) -> None:
        """``database`` is the URL of any database of the server to pass on to."""
        self._host = parse_qs(urlsplit(database).query)["host"][0]
        self._pool = pool

    def url(self, of: str) -> str:
        return f"{of.partition('?')[0]}?host={self._folder}&port=6432"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: ExitStack) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="neuro-bouncer-", dir="/tmp"))
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._folder.chmod(0o755)
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(host=self._host, folder=self._folder, pool=self._pool))
        (self._folder / "users").write_text('"neuro" ""\n')
        command = [find_program() or "pgbouncer", "-q", str(settings)]
        if os.geteuid() == 0:
            user = unprivileged_user()
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            user_is = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            command = ["setpriv", "--pdeathsig=KILL", *user_is, *command]
        with (self._folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            )
        stack.callback(self._stop)
        deadline = time.monotonic() + START_SECONDS
        while not (self._folder / ".s.PGSQL.6432").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"pgbouncer did not start:\n{self._said()}")
            time.sleep(0.01)

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def _said(self) -> str:
        return "".join(
            path.read_text() for name in ("output", "log") if (path := self._folder / name).exists()
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
