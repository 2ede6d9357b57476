"""Who pulls and pushes: passwords from a file in the form of Docker's ``config.json``."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from neuro.builder.faults import BuildFault
from neuro.engines.images.references import DOCKER_HUB, Reference
from neuro.engines.runs import PullCredentials

_PLACES = ("/kaniko/.docker/config.json", "~/.docker/config.json")
_LARGEST = 1 << 20
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""


class _Config(msgspec.Struct, frozen=True):
    auths: dict[str, _Auth] = {}


class Credentials:
    """By registry, as Docker's command line finds them; and where registries are from here."""

    def __init__(
        self,
        auths: Mapping[str, PullCredentials] | None = None,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """``places`` are the hosts of registries that have others here than in their names."""
        self._auths = dict(auths or {})
        self._places = dict(places or {})

    def at(self, places: Mapping[str, str]) -> Credentials:
        """The same; the registries named there are at other hosts."""
        return Credentials(self._auths, places)

    def located(self, reference: Reference) -> Reference:
        """The reference by the host that answers for its registry here."""
        place = self._places.get(reference.registry)
        return reference if place is None else replace(reference, registry=place)

    def of(self, registry: str) -> PullCredentials | None:
        """Whose name to say to a registry; None where nobody's is known."""
        if registry == DOCKER_HUB:
            return next((self._auths[key] for key in _HUB_KEYS if key in self._auths), None)
        return self._auths.get(registry)


def load(environment: Mapping[str, str]) -> Credentials:
    """Those of the first file that is there. Raises BuildFault for one that cannot be read."""
    folder = environment.get("DOCKER_CONFIG")
    for place in (f"{folder}/config.json",) if folder else _PLACES:
        path = os.path.expanduser(place)
        try:
            with open(path, "rb") as file:
                return read(file.read(_LARGEST), path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BuildFault(f"{path} cannot be read: {error.strerror}.") from None
    return Credentials()


def read(content: bytes, path: str) -> Credentials:
    """The passwords of a file's content. Raises BuildFault.

    >>> read(b'{"auths": {"here:5000": {"auth": "bWU6c2VjcmV0"}}}', "x").of("here:5000").user
    'me'
    """
    try:
        auths = msgspec.json.decode(content, type=_Config).auths
        return Credentials({_host(name): _pair(one) for name, one in auths.items() if _has(one)})
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError):
        raise BuildFault(
            f"{path} is not a file of passwords in Docker's form.",
            "Write it with docker login, or leave it out.",
        ) from None


def _has(one: _Auth) -> bool:
    return bool(one.auth or one.username)


def _pair(one: _Auth) -> PullCredentials:
    if not one.auth:
        return PullCredentials(one.username, one.password)
    user, _, password = base64.b64decode(one.auth, validate=True).decode().partition(":")
    return PullCredentials(user, password.strip("\0"))


def _host(name: str) -> str:
    if name in _HUB_KEYS:
        return name
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]
