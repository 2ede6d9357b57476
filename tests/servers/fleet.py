"""Several real servers of one installation: one database, one storage, one engine for all.

Each has a data folder and a port of its own, and its own embedded engine beside the shared one.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from neuro.client import Client
from neuro.server.access.keys import load_or_create_key
from tests.engines.plain import supervisor
from tests.server_process import ServerProcess, end_jobs

_PROGRAM = Path(__file__).with_name("main.py")
# The preset ``shared`` is on an engine that any server may look after.
SETTINGS = """
stop_grace_seconds = 1
[capacity]
cpu = 4
memory = "8G"
[[presets]]
name = "shared"
cpu = 0.1
memory = "64M"
engine = "shared"
[[presets]]
name = "own"
cpu = 0.5
memory = "256M"
[engines.shared]
kind = "plain"
folder = "{engine}"
cpu = 64
memory = "64G"
"""


class Member(ServerProcess):
    """One of them."""

    def __init__(self, name: str, data_dir: Path, **options: Any) -> None:
        super().__init__(data_dir, program=(str(_PROGRAM),), **options)
        self.name = name

    def freeze(self) -> None:
        """It stands still, as on a machine that is suspended."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on as if nothing had happened."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def connect(self) -> Client:
        """A client of the machine's owner, who is an admin."""
        client = Client.connect(self.url, self.token)
        client.user = self.user
        return client


class Fleet:
    """Servers by their names, made by ``add``; they begin when they are told to."""

    def __init__(self, folder: Path, database: str | None, settings: str = SETTINGS) -> None:
        """``database`` is the URL for all of them; None for SQLite, which only one can have.

        In ``settings``, ``{engine}`` is the shared engine's folder, ``{storage}`` the storage's and
        ``{name}`` the server's name.
        """
        self.folder = folder
        self.engine = folder / "engine"
        self.storage = folder / "storage"
        self._database = database
        self._settings = settings
        self.members: dict[str, Member] = {}

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def add(self, name: str, *, database: str | None = None, settings: str | None = None) -> Member:
        """One more, which has the others' key and storage; not started."""
        self.storage.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = self.folder / "tokens.key"
        load_or_create_key(key)
        data = self.folder / name
        (data / "keys").mkdir(parents=True, mode=0o700)
        shutil.copy(key, data / "keys" / "tokens.key")
        text = settings or self._settings
        if "{storage}" not in text:
            (data / "storage").symlink_to(self.storage)
        if self.members and "[server]" not in text:  # One of them may be without a name.
            text += '\n[server]\nname = "{name}"\n'
        for word, value in {"engine": self.engine, "storage": self.storage, "name": name}.items():
            text = text.replace(f"{{{word}}}", str(value))
        member = Member(name, data, settings=text, database=database or self._database)
        self.members[name] = member
        return member

    def start(self, *names: str) -> None:
        """Start these at once, all without names. Raises RuntimeError with what one said."""
        members = [self.members[name] for name in names or self.members]
        with ThreadPoolExecutor(len(members)) as pool:
            list(pool.map(Member.start, members))

    def close(self) -> None:
        """End all jobs through one that runs, then the servers, and then what they left."""
        running = [member for member in self.members.values() if member.is_running()]
        with ExitStack() as stack:  # In reverse, and each one whatever the others raise.
            stack.callback(supervisor.kill_all, str(self.engine))
            for member in running:
                stack.callback(member.stop)
            for member in running:
                member.thaw()
            if running:
                end_jobs(running[0].url, running[0].token)


@contextmanager
def fleet_of(*names: str, folder: Path, database: str | None, **options: Any) -> Iterator[Fleet]:
    """Servers with these names that have started in turn; they end with the context."""
    fleet = Fleet(folder, database, **options)
    try:
        for name in names:
            fleet.add(name).start()
        yield fleet
    finally:
        fleet.close()
