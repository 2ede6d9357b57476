"""The servers that this person is logged in to: ``servers.json`` in the configuration folder.

Several stand side by side, one of them is current. The folder is the reference clients' own
(``~/.neuro``); their ``db`` file in it is never touched. A job that was started with
``--pass-config`` is logged in by its environment instead.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from neuro.domain.errors import InvalidInput, PlatformError
from neuro.domain.server_config import ClusterMessage, ServerConfig

API_PATH = "/api/v1"
DEFAULT_FOLDER = "~/.neuro"
FOLDER_VARIABLE = "NEUROMATION_CONFIG"
PASSED_VARIABLE = "NEURO_PASSED_CONFIG"
NOBODY = (
    "You are not logged in. Start the platform on this machine with `neuro up`, or log in to one"
    " with `neuro login URL`."
)
# The first is the reference server's newer name for it.
_CLAIMS = ("identity", "https://platform.neuromation.io/user")


class NotConfigured(PlatformError):
    """Nobody is logged in here, or the stored logins cannot be used."""

    code = "not_configured"
    status = 400


class PassedConfig(msgspec.Struct, frozen=True):
    """What ``NEURO_PASSED_CONFIG`` holds, as JSON in base64."""

    token: str
    cluster: str
    url: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One server with the person's token there, and its configuration as it was last seen."""

    url: str
    token: str
    user: str
    cluster: str
    config: ServerConfig
    # Where the data of a server of this machine is that this person started or logged in to.
    data_dir: str | None = None
    # Which server was the current one before this one was started, by URL.
    before: str | None = None
    # Its address is good until it stops: it took any free port.
    any_port: bool = False

    @property
    def current_cluster(self) -> ClusterMessage:
        """The current cluster's message. Raises NotConfigured where the server does not have it."""
        for cluster in self.config.clusters:
            if cluster.name == self.cluster:
                return cluster
        names = ", ".join(cluster.name for cluster in self.config.clusters) or "none"
        raise NotConfigured(
            f"The server at {self.url} has no cluster '{self.cluster}' (it has: {names}). Choose"
            " one with `neuro config switch-cluster`."
        )


class Accounts(msgspec.Struct, frozen=True, kw_only=True):
    """All accounts; ``current`` is the URL of the one in use."""

    current: str | None = None
    accounts: list[Account] = []

    def find(self, url: str) -> Account | None:
        return next((account for account in self.accounts if account.url == url), None)

    def with_account(self, account: Account) -> Accounts:
        """These with ``account`` added or renewed, and made the current one."""
        others = [
            other
            for other in self.accounts
            if other.url != account.url
            and not (other.any_port and other.data_dir == account.data_dir)
        ]
        return Accounts(current=account.url, accounts=[*others, account])

    def without(self, url: str) -> Accounts:
        """These without one server; another one becomes current if that one was."""
        others = [other for other in self.accounts if other.url != url]
        current = self.current
        if current == url:
            current = others[-1].url if others else None
        return Accounts(current=current, accounts=others)


def load(folder: Path) -> Accounts:
    """Read the file; an absent one has no accounts. Raises NotConfigured for a damaged one."""
    path = folder / "servers.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Accounts()
    try:
        return msgspec.json.decode(content, type=Accounts)
    except msgspec.DecodeError as error:
        raise NotConfigured(
            f"{path} is damaged ({error}). Move it away and log in again."
        ) from None


def save(folder: Path, accounts: Accounts) -> None:
    """Write the file in one step, readable by its owner only."""
    import tempfile  # 3 ms, and few commands write.

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    # A link, of those who keep such files elsewhere, stays one.
    path = (folder / "servers.json").resolve()
    # mkstemp makes the file with mode 0600.
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".servers-")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(accounts)))
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def current(folder: Path | None = None) -> tuple[str, str, str, str]:
    """The address, token, user and cluster in use, without asking the server anything.

    ``folder`` is the configuration folder: by default what ``NEUROMATION_CONFIG`` says, else
    ``~/.neuro``. Raises NotConfigured where nobody is logged in.
    """
    if folder is None:
        folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    accounts = load(folder.expanduser())
    account = accounts.find(accounts.current) if accounts.current else None
    if account is not None:
        return account.url, account.token, account.user, account.cluster
    passed = passed_config()
    if passed is not None:
        return passed.url, passed.token, user_in(passed.token), passed.cluster
    raise NotConfigured(NOBODY)


def passed_config() -> PassedConfig | None:
    """The login that a job was passed, or None. Raises NotConfigured where it cannot be read."""
    if not (text := os.environ.get(PASSED_VARIABLE)):
        return None
    try:
        passed = msgspec.json.decode(base64.b64decode(text), type=PassedConfig)
    except (binascii.Error, msgspec.MsgspecError) as error:
        raise NotConfigured(f"{PASSED_VARIABLE} cannot be read: {error}") from None
    return msgspec.structs.replace(passed, url=passed.url.rstrip("/"))


def api_url(text: str) -> str:
    """The API's address of what a person wrote: ``myhost:8085`` is enough.

    >>> api_url("myhost:8085/")
    'http://myhost:8085/api/v1'

    Raises InvalidInput for what is not an address.
    """
    word = text.strip()
    parts = urlsplit(word if "://" in word else f"http://{word}")
    path = parts.path.rstrip("/")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"'{text}' is not an address: write it like http://HOST:8085.")
    return f"{parts.scheme}://{parts.netloc}{path or API_PATH}"


def user_in(token: str) -> str:
    """The user's name in a token, whose signature is not checked here.

    Raises InvalidInput for what is not a token.
    """
    claims = _claims_in(token)
    names = [claims[claim] for claim in _CLAIMS if claim in claims]
    if not names or not isinstance(names[0], str):
        raise InvalidInput("Passed string does not contain valid JWT structure.")
    return names[0]


def token_id_in(token: str) -> str | None:
    """The id by which ``neuro config token ls`` lists a token; None where it has none."""
    found = _claims_in(token).get("jti")
    return found if isinstance(found, str) else None


def _claims_in(token: str) -> dict[str, object]:
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        return msgspec.json.decode(text, type=dict[str, object])
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        return {}
