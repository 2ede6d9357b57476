"""The servers that this person is logged in to: ``servers.json`` in the configuration folder.

Several stand side by side, one of them is current. The folder is the reference clients' own
(``~/.neuro``); their ``db`` file in it is never touched.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from neuro.cli.failures import CONFIG, Failure
from neuro.domain.server_config import ClusterMessage, ServerConfig


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One server with the person's token there, and its configuration as it was last seen."""

    url: str
    token: str
    user: str
    cluster: str
    config: ServerConfig
    # Where the data of a server of this machine is that this person started or logged in to.
    data_dir: str | None = None

    @property
    def current_cluster(self) -> ClusterMessage:
        """The current cluster's message; raises Failure where the server offers none."""
        for cluster in self.config.clusters:
            if cluster.name == self.cluster:
                return cluster
        names = ", ".join(cluster.name for cluster in self.config.clusters) or "none"
        raise Failure(
            f"The server at {self.url} has no cluster '{self.cluster}' (it has: {names}). Choose"
            " one with `neuro config switch-cluster`.",
            CONFIG,
        )


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts; ``current`` is the URL of the one in use."""

    current: str | None = None
    accounts: list[Account] = []

    def find(self, url: str) -> Account | None:
        return next((account for account in self.accounts if account.url == url), None)

    def with_account(self, account: Account) -> Accounts:
        """These with ``account`` added or renewed, and made the current one."""
        others = [other for other in self.accounts if other.url != account.url]
        return Accounts(current=account.url, accounts=[*others, account])

    def without(self, url: str) -> Accounts:
        """These without one server; another one becomes current if that one was."""
        others = [other for other in self.accounts if other.url != url]
        current = self.current
        if current == url:
            current = others[-1].url if others else None
        return Accounts(current=current, accounts=others)


def load(folder: Path) -> Accounts:
    """Read the file; an absent one has no accounts. Raises Failure for a damaged one."""
    path = folder / "servers.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Accounts()
    try:
        return msgspec.json.decode(content, type=Accounts)
    except msgspec.DecodeError as error:
        raise Failure(
            f"{path} is damaged ({error}). Move it away and log in again.", CONFIG
        ) from None


def save(folder: Path, accounts: Accounts) -> None:
    """Write the file in one step, readable by its owner only."""
    import tempfile  # 3 ms, and few commands write.

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    # mkstemp makes the file with mode 0600.
    number, name = tempfile.mkstemp(dir=folder, prefix=".servers-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(accounts)))
        Path(name).replace(folder / "servers.json")
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
