"""The machine's own user: the first user and admin, who logs in by a file only they can read."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from neuro.domain.errors import NotAuthenticated, NotFound
from neuro.domain.names import user_name_from
from neuro.server.access.service import AccessService


class OwnerLogin(msgspec.Struct, frozen=True):
    """``run/owner.json``: how the machine's user logs in without a browser."""

    url: str
    token: str
    user: str


def machine_owner() -> str:
    """What the machine's own user is called here."""
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
def announced(folder: Path, url: str) -> Iterator[None]:
    """``run/server.json`` says where the server is, as long as it is."""
    path = folder / "run" / "server.json"
    started_at = datetime.now().astimezone().isoformat()
    state = {"pid": os.getpid(), "url": url, "started_at": started_at}
    _write_private(path, msgspec.json.encode(state))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


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
