"""The images of a daemon: looking at them, naming, pulling, pushing and removing them."""

from __future__ import annotations

import base64
import json
from collections.abc import Generator, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from neuro.docker.asking import LIBPOD, Asker, read

T = TypeVar("T")

SILENCE = 600.0  # seconds that a daemon may say nothing while it pulls or pushes
FULL = "no space left on device"
# What daemons say of a registry that is not there at the moment.
AWAY = ("connection refused", "connection reset", "i/o timeout", "EOF", "502 Bad Gateway")


class ImageConfig(msgspec.Struct, rename="pascal"):
    """What an image says of the containers that are made of it, or a container of itself."""

    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    user: str | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    healthcheck: dict[str, Any] | None = None


class Image(msgspec.Struct, rename="pascal"):
    """An image that the daemon has."""

    id: str
    config: ImageConfig | None = None


class _Listed(msgspec.Struct, rename="pascal"):
    repo_tags: list[str] | None = None


class Step(msgspec.Struct, rename="camel"):
    """One line of what the daemon tells of a pull."""

    status: str = ""
    id: str = ""
    progress_detail: dict[str, Any] | None = None
    error: str | None = None


class Images(Asker):
    """A daemon that is asked for images."""

    def image(self, reference: str) -> Image | None:
        """An image that is here."""
        return self._found(Image, f"/images/{quote(reference, safe='/:@')}/json")

    def names_in(self, repository: str) -> list[str]:
        """The names, with their tags, that images have in a repository of the daemon's."""
        found = self._get(list[_Listed], "/images/json", filters={"reference": [repository]})
        return [name for one in found for name in one.repo_tags or ()]

    def tag(self, reference: str, name: str, tag: str) -> None:
        """Give an image that is here another name."""
        path = f"/images/{quote(reference, safe='/:@')}/tag"
        self._call("POST", path, {"repo": name, "tag": tag})

    def pull(
        self,
        name: str,
        tag: str,
        credentials: Mapping[str, str] | None,
        seconds: float,
        *,
        without_tls: bool | None = None,
    ) -> Iterator[Step]:
        """Pull an image; ``seconds`` may be between two steps of what is told.

        Docker knows by itself which registries have no TLS: those of its machine, and those of its
        settings. podman is told by ``without_tls``; by default, of those of its machine.
        """
        path, query = "/images/create", {"fromImage": name, "tag": tag}
        if without_tls is None:
            without_tls = name.startswith("127.")
        if self.is_podman and without_tls:
            reference = f"{name}:{tag}" if tag else name
            path = f"{LIBPOD}/images/pull"
            query = {"reference": reference, "tlsVerify": "false"}
        return self._steps(path, query, credentials, seconds)

    def push(
        self,
        name: str,
        tag: str,
        credentials: Mapping[str, str],
        seconds: float,
        *,
        without_tls: bool,
    ) -> Iterator[Step]:
        """Push an image to the registry that its name begins with; otherwise as ``pull``."""
        query = {"tag": tag}
        path = f"/images/{quote(name, safe='/:')}/push"
        if self.is_podman and without_tls:
            query["tlsVerify"] = "false"
        return self._steps(path, query, credentials, seconds)

    def _steps(
        self,
        path: str,
        query: Mapping[str, str],
        credentials: Mapping[str, str] | None,
        seconds: float,
    ) -> Iterator[Step]:
        headers = {}
        if credentials is not None:
            text = json.dumps(credentials).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(text).decode()
        yield from self._told(Step, path, query, headers, seconds)

    def _told(
        self,
        kind: type[T],
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        seconds: float,
    ) -> Generator[T, None, None]:
        """What the daemon tells of some work as it goes on, which ends when nobody reads it."""
        connection, answer = self._ask("POST", path, query, None, headers, seconds)
        try:
            while line := read(answer.readline):
                if line.strip():
                    yield msgspec.json.decode(line, type=kind)
        finally:
            connection.close()

    def remove_image(self, reference: str) -> None:
        """Take a name from an image; who is made of it keeps its layers."""
        self._call("DELETE", f"/images/{quote(reference, safe='/:@')}", {"noprune": "1"})


def name_and_tag(reference: str) -> tuple[str, str]:
    """What the daemon calls them; a digest belongs to the name."""
    if "@" in reference:
        return reference, ""
    name, _, tag = reference.rpartition(":")
    if not name or "/" in tag:  # the colon is that of a registry's port
        return reference, "latest"
    return name, tag
