"""The machine's own user: the first user and admin, who logs in by a file only they can read."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import getpass
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

import msgspec
import structlog

from neuro.domain.errors import Conflict, NotAuthenticated, NotFound
from neuro.domain.names import user_name_from
from neuro.server.access.service import AccessService

log = structlog.get_logger("neuro.server")

KEEP_SECONDS = 5.0  # between two looks at whether the files below ``run`` are there


class OwnerLogin(msgspec.Struct, frozen=True):
    """``run/owner.json``: how the machine's user logs in without a browser."""

    url: str
    token: str
    user: str


def machine_owner() -> str:
    """The platform's name of the user who runs the server."""
    return user_name_from(getpass.getuser())


async def write_login(folder: Path, access: AccessService, url: str) -> None:
    """Make the owner at the first start, and keep a login of theirs in ``run/owner.json``."""
    owner = machine_owner()
    try:
        await access.user(owner)
    except NotFound:
        # Who has the data folder has all that is in it, whatever the name was before.
        await access.add_user(owner, is_admin=True, may_be_retired=True)
    path = folder / "run" / "owner.json"
    token = await _token(path, access, owner)
    _write_private(path, msgspec.json.encode(OwnerLogin(url=url, token=token, user=owner)))


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
        self, folder: Path, url: str, hold: Callable[[], None], settings_digest: str
    ) -> None:
        """``hold`` takes the lock of the folder again where it is lost.

        ``settings_digest`` tells which ``server.toml`` the server has read.
        """
        self._run = folder / "run"
        self._hold = hold
        started_at = datetime.now().astimezone().isoformat()
        state = {"pid": os.getpid(), "url": url, "started_at": started_at}
        state["settings"] = settings_digest
        self._files = {
            self._run / "server.json": msgspec.json.encode(state),
            self._run / "owner.json": (self._run / "owner.json").read_bytes(),
        }

    def begin(self) -> None:
        """Write the files, over those of an earlier server. Raises OSError."""
        for path, content in self._files.items():
            _write_private(path, content)

    def keep(self) -> None:
        """Make what is missing. Raises OSError, Conflict."""
        self._run.mkdir(mode=0o700, exist_ok=True)
        self._hold()
        for path, content in self._files.items():
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


async def _token(path: Path, access: AccessService, owner: str) -> str:
    with contextlib.suppress(OSError, msgspec.MsgspecError, NotAuthenticated):
        kept = msgspec.json.decode(path.read_bytes(), type=OwnerLogin)
        identity = await access.authenticate(kept.token)
        if identity.user == owner:
            return kept.token
    token = await access.make_token(owner, label="this machine's owner")
    return token.token or ""


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_name(path.name + ".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.rename(path)
