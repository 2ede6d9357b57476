"""The machine's own user: the first user and admin, who logs in by a file only they can read."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import structlog

from neuro.domain.errors import AlreadyExists, Conflict, NotAuthenticated, NotFound, PlatformError
from neuro.domain.names import user_name_from
from neuro.server.access.service import AccessService
from neuro.server.log import Seldom

log = structlog.get_logger("neuro.server")

KEEP_SECONDS = 5.0  # between two looks at whether the files below ``run`` are there


class OwnerLogin(msgspec.Struct, frozen=True):
    """``run/owner.json``: how the machine's user logs in without a browser."""

    url: str
    token: str
    user: str


class ServerFile(msgspec.Struct, frozen=True, kw_only=True):
    """``run/server.json``: where the server is, and how it was started.

    ``settings`` tells which ``server.toml`` it has read, ``announced_at`` when it did so last,
    ``database`` which database it has without giving away a password: see ``digest_of_url``,
    ``engine`` which one runs the jobs of presets that name none.
    """

    pid: int
    url: str
    host: str
    database: str
    started_at: str
    announced_at: str
    settings: str
    engine: str


def digest_of_url(database: str | None) -> str:
    """What tells one database from another; that of nothing where it is the folder's own."""
    return hashlib.sha256((database or "").encode()).hexdigest()


def machine_owner() -> str:
    """The platform's name of the user who runs the server."""
    return user_name_from(getpass.getuser())


class LoginFile:
    """Keeps ``run/owner.json``: a token of the owner's that is good."""

    def __init__(self, folder: Path, access: AccessService, url: str) -> None:
        self.path = folder / "run" / "owner.json"
        self._access = access
        self.url = url
        self._owner = machine_owner()
        self._login: OwnerLogin | None = None
        self._written: OwnerLogin | None = None
        self._ended = asyncio.Event()
        self._fails = Seldom(log, "the owner's login cannot be renewed")
        access.listen(self._note_end)

    @property
    def content(self) -> bytes:
        """What is in the file."""
        return msgspec.json.encode(self._login)

    async def write(self) -> None:
        """Make the owner at the first start; write the file where its token is good no more.

        Raises OSError, PlatformError.
        """
        try:
            await self._access.user(self._owner)
        except NotFound:
            # Who has the data folder has all that is in it, whatever the name was before. Another
            # server of the same database may have made the user just now.
            with contextlib.suppress(AlreadyExists):
                await self._access.add_user(self._owner, is_admin=True, may_be_retired=True)
        token = await self._token()
        self._login = OwnerLogin(url=self.url, token=token, user=self._owner)
        if self._written != self._login:
            _write_private(self.path, self.content)
            self._written = self._login

    async def keep_on(self) -> None:
        """Renew the token for ever: as soon as it was revoked, and soon after it expired."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), KEEP_SECONDS)
            self._ended.clear()
            try:
                await self.write()
            except (OSError, PlatformError) as error:
                self._fails.say(error=str(error))

    def _note_end(self, user: str, _: str | None) -> None:
        if user == self._owner:
            self._ended.set()

    async def _token(self) -> str:
        with contextlib.suppress(OSError, msgspec.MsgspecError, NotAuthenticated):
            kept = self._login or msgspec.json.decode(self.path.read_bytes(), type=OwnerLogin)
            identity = await self._access.authenticate(kept.token)
            if identity.user == self._owner:
                return kept.token
        token = await self._access.make_token(self._owner, label="this machine's owner")
        return token.token or ""


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the lock at ``path``; what is yielded takes it again where somebody deleted the file.

    Raises Conflict where another server holds it.
    """
    held: list[IO[bytes]] = []

    def hold() -> None:
        if held and os.fstat(held[-1].fileno()).st_nlink:
            return
        lock = path.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise Conflict(
                f"A server runs on {path.parent.parent} already: stop it with `neuro down`, or"
                " choose another folder with --data-dir."
            ) from None
        held.append(lock)

    hold()
    try:
        yield hold
    finally:
        for lock in held:
            lock.close()


class Announcement:
    """``run/server.json`` says where the server is, ``run/owner.json`` how its owner logs in."""

    def __init__(
        self, folder: Path, state: ServerFile, login: LoginFile, hold: Callable[[], None]
    ) -> None:
        """``hold`` takes the lock of the folder again where it is lost."""
        self._run = folder / "run"
        self._hold = hold
        self._state = msgspec.json.encode(state)
        self._login = login

    def begin(self) -> None:
        """Say where the server is, over what an earlier one said. Raises OSError."""
        _write_private(self._run / "server.json", self._state)

    def keep(self) -> None:
        """Make what is missing. Raises OSError, Conflict."""
        self._run.mkdir(mode=0o700, exist_ok=True)
        self._hold()
        files = {self._run / "server.json": self._state, self._login.path: self._login.content}
        for path, content in files.items():
            if not path.exists():
                _write_private(path, content)

    async def keep_on(self) -> None:
        """Make what somebody takes away, for ever."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            try:
                self.keep()
            except (OSError, Conflict) as error:
                log.warning("the files below run cannot be made again", error=str(error))

    def withdraw(self) -> None:
        """The server is ending."""
        (self._run / "server.json").unlink(missing_ok=True)


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.rename(path)
