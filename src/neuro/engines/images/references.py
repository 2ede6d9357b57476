"""Image references taken apart: which registry is asked for what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from neuro.domain.images import check_image

DOCKER_HUB = "docker.io"
_HUB_NAMES = (DOCKER_HUB, "index.docker.io")
_HUB_HOST = "registry-1.docker.io"
_TAG = "latest"
# Of these it is known that their names are right: if one cannot be reached, there is no way out of
# here. A registry that is nobody's but the company's may be away, and its jobs wait for it.
PUBLIC = (
    *(DOCKER_HUB, "ghcr.io", "quay.io", "gcr.io", "nvcr.io", "public.ecr.aws", "registry.k8s.io"),
    *("mcr.microsoft.com", "registry.gitlab.com"),
)


@dataclass(frozen=True)
class Reference:
    """Where an image is. Of ``tag`` and ``digest`` at least one is not empty; the digest decides.

    >>> str(parse("ubuntu"))
    'docker.io/library/ubuntu:latest'
    """

    registry: str
    repository: str
    tag: str
    digest: str

    @property
    def host(self) -> str:
        """Host and port that answer for the registry: those of Docker Hub differ from its name."""
        return _HUB_HOST if self.registry == DOCKER_HUB else self.registry

    @property
    def version(self) -> str:
        """What a registry is asked for."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def mirrored(reference: str, mirrors: Collection[str]) -> str | None:
    """The path of an image below the registry that mirrors its own, with its tag or digest.

    None where none of ``mirrors``, which are names of registries, is its own. Raises InvalidInput.

    >>> mirrored("debian:12", ["docker.io"])
    'docker.io/library/debian:12'
    """
    found = parse(reference)
    return str(found) if found.registry in mirrors else None


def parse(reference: str) -> Reference:
    """What a person wrote, as docker reads it. Raises InvalidInput with an example.

    >>> parse("ghcr.io/me/trainer:v1").repository
    'me/trainer'
    >>> parse("localhost:5000/trainer").host
    'localhost:5000'
    """
    name, _, digest = check_image(reference).partition("@")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the colon is that of a port
        head, tag = name, ""
    first, slash, rest = head.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, rest
    else:
        registry, repository = DOCKER_HUB, head
    if registry in _HUB_NAMES:
        registry = DOCKER_HUB
        if "/" not in repository:
            repository = f"library/{repository}"
    return Reference(registry, repository, tag or ("" if digest else _TAG), digest)
