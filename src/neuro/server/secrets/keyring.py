"""The keys that encrypt secrets: a file that only the server's user can read, and no database has.

Each line is a key: its id, and 32 bytes in base64. The last one encrypts; earlier ones only decrypt
what was encrypted before a rotation, such as the rows of an older back-up. An id is a digest of its
key, so it is never another key's, whoever made the file. Servers of one database need the same
file: a copy, or a link to one that all see. Every use looks whether the file has changed.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neuro.domain.errors import Conflict, Unavailable
from neuro.server import durable

KEY_BYTES = 32
MAX_KEYS = 100
_MAX_FILE = 64 * 1024


@dataclass(frozen=True)
class SecretKey:
    """A key and what it is called."""

    id: str
    content: bytes

    def __repr__(self) -> str:
        """Without the key itself: this may end up in a log."""
        return f"SecretKey({self.id!r})"

    @property
    def line(self) -> str:
        return f"{self.id} {base64.b64encode(self.content).decode()}"


class KeyRing:
    """The keys in one file. Every call raises Unavailable, with what to do, where it is no good."""

    def __init__(self, path: Path) -> None:
        self._given = path
        # Threads read at once: which file was seen and its keys are one value, stored together.
        self._last: tuple[tuple[int, int, int, int] | None, dict[str, SecretKey]] = None, {}

    @property
    def path(self) -> Path:
        """The file, behind links: where a new one is put in its place."""
        return self._given.resolve()

    def key(self, key_id: str) -> SecretKey:
        """The key with this id."""
        found = self._read().get(key_id)
        if found is None:
            raise Unavailable(
                f"{self._given} does not have the key {key_id[:32]}, which a secret was encrypted"
                " with: restore the file from a back-up, or copy it from the server that rotated"
                " the key."
            )
        return found

    def current(self, in_use: Collection[str]) -> SecretKey:
        """The key that encrypts; the first one is made where nothing is encrypted yet.

        ``in_use`` are the ids of keys that something is encrypted with. One of them has to be
        here: else this is another installation's file, and nobody could read what it encrypts.
        """
        if not in_use and not self._is_there():
            self._create()
        keys = self._read()
        if in_use and not any(key_id in keys for key_id in in_use):
            self.key(min(in_use))
        return list(keys.values())[-1]

    def rotate(self) -> SecretKey:
        """Add a new key, which encrypts from now on. Raises Conflict where there are too many."""
        with self._alone():
            keys = list(self._read().values())
            if len(keys) >= MAX_KEYS:
                raise Conflict(
                    f"{self._given} has {MAX_KEYS} keys, which is the most: remove the lines of"
                    " the oldest ones, which only older back-ups need."
                )
            key = _new_key()
            self._write([*keys, key])
        return key

    def _create(self) -> None:
        try:
            self._given.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._unusable(error) from None
        with self._alone():
            if not self._is_there():  # else another server has made it a moment ago
                self._write([_new_key()])

    def _is_there(self) -> bool:
        try:
            return self._given.exists()
        except OSError as error:
            raise self._unusable(error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
            except OSError as error:
                raise self._unusable(error) from None
            yield
        finally:
            os.close(folder)

    def _write(self, keys: Collection[SecretKey]) -> None:
        path = self.path
        try:
            durable.write(path, "\n".join(key.line for key in keys))
            # Before anything is encrypted with it: a power loss must not leave that without a key.
            durable.sync_folder(path.parent)
        except OSError as error:
            raise self._unusable(error) from None

    def _read(self) -> dict[str, SecretKey]:
        try:
            with self._given.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_mode
                last_seen, last_keys = self._last
                if seen == last_seen:
                    return last_keys
                if status.st_mode & 0o077:
                    raise Unavailable(
                        f"Others can read the key of secrets {self._given}: run `chmod 600"
                        f" {self._given}`, then change the key with `neuro admin"
                        " rotate-secret-key`."
                    )
                keys = self._parsed(file.read(_MAX_FILE))
        except FileNotFoundError:
            raise Unavailable(
                f"The key of secrets {self._given} is missing: restore it from a back-up, or copy"
                " it from another server of this database."
            ) from None
        except OSError as error:
            raise self._unusable(error) from None
        self._last = seen, keys
        return keys

    def _parsed(self, content: bytes) -> dict[str, SecretKey]:
        keys: dict[str, SecretKey] = {}
        for line in content.decode("ascii", "replace").splitlines():
            key_id, _, text = line.strip().partition(" ")
            if not key_id or key_id.startswith("#"):
                continue
            try:
                key = SecretKey(key_id, base64.b64decode(text, validate=True))
            except binascii.Error:
                raise self._damaged() from None
            if len(key.content) != KEY_BYTES or key.id != _id_of(key.content):
                raise self._damaged()
            keys[key.id] = key
        if not keys:
            raise self._damaged()
        return keys

    def _damaged(self) -> Unavailable:
        return Unavailable(
            f"The key of secrets {self._given} is damaged: restore the file from a back-up."
        )

    def _unusable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"The key of secrets {self._given} cannot be used: {error.strerror or error}."
        )


def _new_key() -> SecretKey:
    content = secrets.token_bytes(KEY_BYTES)
    return SecretKey(_id_of(content), content)


def _id_of(content: bytes) -> str:
    return hashlib.sha256(b"neuro secrets " + content).hexdigest()[:16]
