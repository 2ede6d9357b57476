"""Secrets as the wire knows them (docs/reference/wire-protocol.md#secrets).

A value goes to the server and into jobs, and never back to a client.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.uris import ResourceURI, complete_uri, parse_uri

MAX_VALUE = 64 * 1024  # bytes; what is larger belongs in a file of the storage
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


class SecretRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """POST /secrets: ``value`` is base64 on the wire. ``owner`` is by default the caller."""

    key: str
    value: bytes
    owner: str | None = None
    org_name: str | None = None
    project_name: str | None = None

    def __repr__(self) -> str:
        """Without the value: this may end up in a log."""
        return f"SecretRequest(key={self.key!r}, owner={self.owner!r})"


class RestoreRequest(msgspec.Struct, frozen=True):
    """POST /secrets/{key}/restore: which version's value the secret is to have again."""

    version: Annotated[int, msgspec.Meta(ge=1, le=(1 << 31) - 1)]


class SecretVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a secret: when it was given, and by whom."""

    version: int
    created_at: datetime
    created_by: str


class SecretEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A secret as lists show it. ``used_by`` are ids of active jobs that the asker may see."""

    key: str
    owner: str
    uri: str
    version: int
    created_at: datetime
    created_by: str
    used_by: list[str] = []
    org_name: str | None = None
    project_name: str | None = None


class SecretsRotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation did: how many values have the new key, and how many cannot be read.

    ``key_file`` is the file that has the key, ``key_id`` what the new key is called there.
    """

    encrypted: int
    unreadable: int
    key_id: str
    key_file: str


def check_secret_key(key: str) -> str:
    """The key. Raises InvalidInput for what cannot be one."""
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            f"{key[:80]!r} cannot be a secret's name: use 1 to 253 letters, digits, '-', '_' and"
            " '.', beginning with a letter, a digit or '_'."
        )
    return key


def check_secret_value(value: bytes) -> bytes:
    """The value. Raises InvalidInput for one that is too large."""
    if len(value) > MAX_VALUE:
        raise InvalidInput(
            f"The value has {len(value):,} bytes, and a secret can have {MAX_VALUE:,}: put what is"
            " larger into a file of the storage."
        )
    return value


def mistake_in_secret(text: str) -> str | None:
    """What is wrong with a secret as people write it, ``secret:KEY``; None where nothing is.

    >>> mistake_in_secret("secret:wandb-token")
    >>> mistake_in_secret("secret:")
    "'secret:' does not name a secret: write secret:NAME"
    """
    try:
        uri = complete_uri(text, "secret", cluster="CLUSTER", user="OWNER")
        if len(uri.segments) != 2:
            return f"'{text}' does not name a secret: write secret:NAME"
        check_secret_key(uri.segments[1])
    except InvalidInput as error:
        return str(error).removesuffix(".")
    return None


def mistake_in_secret_volume(text: str) -> str | None:
    """The same of a mount, ``secret:KEY:/PATH/FILE``.

    >>> mistake_in_secret_volume("secret:key:/keys/key:ro")
    "'secret:key:/keys/key:ro': a secret has no mode; write secret:NAME:/PATH/FILE"
    """
    what, _, path = text.rpartition(":")
    if path in ("ro", "rw"):
        return f"'{text}': a secret has no mode; write secret:NAME:/PATH/FILE"
    if ":" not in what or not path.startswith("/"):
        return f"'{text}' does not say where the file is: write secret:NAME:/PATH/FILE"
    return mistake_in_secret(what)


def secret_uri(text: str, cluster: str) -> ResourceURI:
    """The parsed URI of one secret of a cluster. Raises InvalidInput."""
    uri = parse_uri(text)
    if uri.scheme != "secret":
        raise InvalidInput(f"A secret comes from secret:, not from '{text}'.")
    if uri.host != cluster:
        raise InvalidInput(f"'{text}' is not in cluster '{cluster}', where the job would run.")
    if len(uri.segments) != 2:
        raise InvalidInput(f"'{text}' does not name a secret: write secret://{cluster}/OWNER/NAME.")
    check_secret_key(uri.segments[1])
    return uri
