"""Encryption of a secret's value: AES-256-GCM, bound to its owner, its key and its version.

A row that somebody puts in another's place in the database cannot be decrypted there.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from neuro.domain.errors import Damaged
from neuro.server.secrets.keyring import SecretKey

_NONCE = 12


class SecretPlace(NamedTuple):
    """Which version of which secret a value is."""

    owner: str
    key: str
    version: int

    @property
    def associated(self) -> bytes:
        # No name has a slash in it, so no two places are written alike.
        return f"neuro secret {self.owner}/{self.key}/{self.version}".encode()


def seal(key: SecretKey, place: SecretPlace, value: bytes) -> bytes:
    """The value, encrypted for its place."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key.content).encrypt(nonce, value, place.associated)


def unseal(key: SecretKey, place: SecretPlace, sealed: bytes) -> bytes:
    """The value again. Raises Damaged for what is not, whole, the value of this place."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key.content).decrypt(sealed[:_NONCE], sealed[_NONCE:], place.associated)
    except (InvalidTag, ValueError):
        raise Damaged(
            f"The value of the secret '{place.key}' of '{place.owner}' is damaged: give it anew"
            " with `neuro secret add`."
        ) from None
