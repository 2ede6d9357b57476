"""``docker-credential-neuro``: by it Docker, podman and others find the tokens of `neuro login`.

The words are those of Docker's credential helpers: a command as the argument, and its input and
answer on the standard streams. Nothing is stored but what `neuro login` stores.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from neuro.client.accounts import (
    DEFAULT_FOLDER,
    FOLDER_VARIABLE,
    Account,
    NotConfigured,
    PassedConfig,
    load,
    passed_config,
)

# Docker's own sentences: who asks compares them, and goes on without credentials.
NOT_FOUND = "credentials not found in native keychain"
USER = "token"
_MAX_INPUT = 1 << 20
_COMMANDS = "get, store, erase, list"


class _Unknown(Exception):
    """What is answered where something is not known here."""


def answer(command: str, said: str, folder: Path) -> str:
    """What is answered to a command with ``said`` on its input. Raises NotConfigured."""
    logins = _logins(folder)
    if command == "list":
        return json.dumps(dict.fromkeys((_address(one) for one in logins), USER))
    if command == "get":
        token = _token_for(said.strip(), logins)
        if token is None:
            raise _Unknown(NOT_FOUND)
        return json.dumps({"ServerURL": said.strip(), "Username": USER, "Secret": token})
    if command == "store":
        _check_stored(said, logins)
        return ""
    if command == "erase":
        return ""  # `neuro logout` logs out; `docker logout` is no reason to.
    raise _Unknown(f"docker-credential-neuro: {command!r} is not one of {_COMMANDS}")


def _logins(folder: Path) -> list[Account | PassedConfig]:
    """The current server's comes first."""
    accounts = load(folder)
    found: list[Account | PassedConfig] = sorted(
        accounts.accounts, key=lambda account: account.url != accounts.current
    )
    passed = passed_config()
    return [*found, passed] if passed is not None else found


def _token_for(server: str, logins: list[Account | PassedConfig]) -> str | None:
    host = _host(server)
    return next((one.token for one in logins if urlsplit(one.url).netloc == host), None)


def _check_stored(said: str, logins: list[Account | PassedConfig]) -> None:
    try:
        given = json.loads(said)
        server, secret = str(given["ServerURL"]), str(given["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Unknown("docker-credential-neuro: store reads JSON with a ServerURL") from None
    if _token_for(server, logins) != secret:
        raise _Unknown(
            "docker-credential-neuro: this is another token than that of `neuro login`. Log in"
            f" there: neuro config login-with-token TOKEN http://{_host(server)}"
        )


def _host(server: str) -> str:
    """The host of what Docker calls a server: ``https://HOST/v1/``, or ``HOST`` alone."""
    try:
        return urlsplit(server if "://" in server else f"https://{server}").netloc
    except ValueError:
        return ""


def _address(one: Account | PassedConfig) -> str:
    return urlsplit(one.url).netloc


def run(arguments: list[str], given: IO[str], out: IO[str]) -> int:
    """Answer one command; returns the exit code."""
    folder = Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER).expanduser()
    if len(arguments) != 1 or arguments[0] in ("--help", "-h"):
        out.write(
            "Usage: docker-credential-neuro COMMAND\n\nDocker calls this to find the token of"
            f" `neuro login`, once `neuro config docker` named it.\nCommands: {_COMMANDS}\n"
        )
        return 0 if arguments[:1] in (["--help"], ["-h"]) else 2
    said = "" if arguments[0] == "list" else given.read(_MAX_INPUT)
    try:
        out.write(answer(arguments[0], said, folder) + "\n")
    except (_Unknown, NotConfigured, OSError) as error:
        out.write(f"{error}\n")
        return 1
    return 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:], sys.stdin, sys.stdout))


if __name__ == "__main__":
    main()
