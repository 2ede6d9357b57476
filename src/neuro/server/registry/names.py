"""The names of the registry: repositories, tags, digests. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from neuro.domain.images import PART
from neuro.domain.uris import ResourceURI
from neuro.server.registry.errors import RegistryError

MAX_REPOSITORY = 255
MAX_TAG = 128

_REPOSITORY = re.compile(rf"{PART}(?:/{PART})+")
_TAG = re.compile(rf"[a-zA-Z0-9_][a-zA-Z0-9._-]{{0,{MAX_TAG - 1}}}")
# How many hexadecimal digits a digest of each algorithm has.
_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")
DEFAULT_ALGORITHM = "sha256"


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository: ``OWNER/NAME``, where a name may have slashes in it."""

    path: str

    @property
    def owner(self) -> str:
        return self.path.partition("/")[0]

    def uri(self, cluster: str) -> ResourceURI:
        """What permissions are asked about; it covers all tags and digests."""
        return ResourceURI("image", cluster, tuple(self.path.split("/")))


def parse_repository(text: str) -> Repository:
    """Raises RegistryError NAME_INVALID.

    >>> parse_repository("anna/trainer").owner
    'anna'
    """
    if len(text) > MAX_REPOSITORY or not _REPOSITORY.fullmatch(text):
        shown = text if len(text) <= MAX_REPOSITORY else f"{text[:MAX_REPOSITORY]}…"
        raise RegistryError(
            "NAME_INVALID",
            400,
            f"'{shown}' does not name an image: write OWNER/NAME, in small letters, digits and"
            f" single '.', '_' or '-' between them, {MAX_REPOSITORY} characters at most.",
        )
    return Repository(text)


def parse_prefix(text: str) -> Repository:
    """An owner, or a repository, or what names of some begin with. Raises RegistryError.

    >>> parse_prefix("anna").owner
    'anna'
    """
    return parse_repository(text) if "/" in text else Repository(_owner(text))


def _owner(text: str) -> str:
    parse_repository(f"{text}/x")
    return text


def parse_tag(text: str) -> str:
    """Raises RegistryError TAG_INVALID."""
    if not _TAG.fullmatch(text):
        raise RegistryError(
            "TAG_INVALID",
            400,
            f"'{text[:MAX_TAG]}' is not a tag: letters, digits, '_', '.' and '-', {MAX_TAG} of them"
            " at most, and not '.' or '-' first.",
        )
    return text


def parse_digest(text: str) -> str:
    """Raises RegistryError DIGEST_INVALID.

    >>> parse_digest("sha256:" + 64 * "0")[:10]
    'sha256:000'
    """
    algorithm, _, encoded = text.partition(":")
    if len(encoded) != _LENGTHS.get(algorithm) or not _HEX.fullmatch(encoded):
        raise RegistryError(
            "DIGEST_INVALID",
            400,
            f"'{text[:140]}' is not a digest: write sha256: and 64 digits of 0-9a-f, or sha512: and"
            " 128 of them.",
        )
    return text


def check_algorithm(name: str) -> str:
    """Raises RegistryError DIGEST_INVALID for an algorithm that this registry has not."""
    if name not in _LENGTHS:
        raise RegistryError(
            "DIGEST_INVALID",
            400,
            f"'{name[:40]}' is not an algorithm: use {' or '.join(_LENGTHS)}.",
        )
    return name


def is_digest(reference: str) -> bool:
    """Whether what a manifest is asked by is a digest; else it is a tag, which has no colon."""
    return ":" in reference


def algorithm_of(digest: str) -> str:
    """What a digest was made with."""
    return digest.partition(":")[0]


def hasher(algorithm: str) -> Any:
    """A hash that has seen nothing yet."""
    return hashlib.new(algorithm, usedforsecurity=True)


def digest_of(content: bytes, algorithm: str = DEFAULT_ALGORITHM) -> str:
    """
    >>> digest_of(b"")[:19]
    'sha256:e3b0c44298fc'
    """
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
