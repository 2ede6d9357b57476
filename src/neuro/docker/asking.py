"""Asking a daemon that speaks the Docker Engine API: Docker's own, or podman's service.

It blocks: a command line has no event loop, nor have keepers of containers, and a server asks in
threads.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

from neuro.docker.places import TCP

_NEWEST = (1, 56)  # that this was seen with; a newer daemon speaks it as well
_OLDEST = (1, 40)
LIBPOD = "/v4.0.0/libpod"  # the oldest that podman 4 and 5 speak
_SECONDS = 120.0  # for an answer: a start may wait for a slow disk
_OTHER_VERSION = "client version"  # begins what a daemon says to a version that it does not speak

T = TypeVar("T")


class Refused(Exception):
    """The daemon's answer was an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def silent(socket_path: str, error: OSError) -> str:
    """What is said where the daemon cannot be reached."""
    return (
        f"the Docker daemon at {socket_path} does not answer ({error.strerror or error}): start it"
    )


class Component(msgspec.Struct, rename="pascal"):
    """A part of a daemon."""

    name: str


class Version(msgspec.Struct, rename="pascal"):
    """Which versions of the API the daemon speaks."""

    api_version: str
    least: str = msgspec.field(name="MinAPIVersion", default="1.24")
    components: list[Component] = []

    @property
    def is_podman(self) -> bool:
        """Whether it is podman's service, which answers as a daemon of Docker does."""
        return any("podman" in one.name.lower() for one in self.components)


def chosen_version(offered: Version) -> str:
    """The version to speak. Raises ValueError with a sentence where there is none in common."""
    newest, least = numbers(offered.api_version), numbers(offered.least)
    if newest < _OLDEST:
        raise ValueError(
            f"the daemon speaks version {offered.api_version} of the Docker API, and at least"
            f" {_text(_OLDEST)} (Docker 19.03) is needed"
        )
    if least > _NEWEST:
        raise ValueError(
            f"the daemon speaks version {offered.least} of the Docker API and later, and this"
            f" version of the platform {_text(_NEWEST)} at most: install a newer one"
        )
    return _text(min(newest, _NEWEST))


def numbers(version: str) -> tuple[int, int]:
    """A version to compare.

    >>> numbers("1.41") < numbers("1.5")
    False
    """
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


class Asker:
    """Asks one daemon. Every method raises OSError where it is away, Refused for what it refuses.

    Each question has a connection of its own, so threads may ask at once.
    """

    def __init__(
        self,
        path: str,
        version: str = "",
        seconds: float = _SECONDS,
        *,
        is_podman: bool = False,
    ) -> None:
        """``path`` is that of its socket, or ``tcp://HOST:PORT``.

        ``version`` of the API is its own by default. A daemon that was replaced by another since it
        was chosen is asked again which one it speaks. ``seconds`` is how long an answer may take.
        podman's service has words of its own for what it does not understand in Docker's.
        """
        self.is_podman = is_podman
        self._path = path
        self._seconds = seconds
        self._prefix = f"/v{version}" if version else ""

    def version(self) -> Version:
        return self._get(Version, "/version")

    def _get(self, kind: type[T], path: str, **query: Any) -> T:
        texts = {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in query.items()
        }
        return msgspec.json.decode(self._call("GET", path, texts), type=kind)

    def _found(self, kind: type[T], path: str) -> T | None:
        try:
            return self._get(kind, path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> bytes:
        connection, answer = self._ask(
            method, path, query or {}, body, {}, seconds or self._seconds
        )
        try:
            return read(answer.read)
        finally:
            connection.close()

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        sent = dict(headers)
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        prefix = "" if path.startswith(LIBPOD) else self._prefix
        target = path + (f"?{urlencode(query)}" if query else "")
        try:
            return self._send(method, prefix + target, content, sent, seconds)
        except Refused as refused:
            if not prefix or not refused.message.startswith(_OTHER_VERSION):
                raise
            prefix = self._prefix = f"/v{self._version_anew(refused)}"
            return self._send(method, prefix + target, content, sent, seconds)

    def _version_anew(self, refused: Refused) -> str:
        """Which one to speak from now on. Raises Refused where there is none in common."""
        connection, answer = self._send("GET", "/version", None, {}, self._seconds)
        try:
            return chosen_version(msgspec.json.decode(read(answer.read), type=Version))
        except ValueError as error:
            raise Refused(refused.status, str(error)) from None
        finally:
            connection.close()

    def _send(
        self,
        method: str,
        target: str,
        content: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._connection(seconds)
        try:
            connection.request(method, target, content, dict(headers))
            answer = connection.getresponse()
            if answer.status >= 400:
                raise Refused(answer.status, _message(answer.read()))
        except http.client.HTTPException as error:
            connection.close()
            raise OSError(0, f"the Docker daemon does not answer as one: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        return connection, answer

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._path.startswith(TCP):
            return http.client.HTTPConnection(self._path.removeprefix(TCP), timeout=seconds)
        return _Connection(self._path, seconds)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("docker", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


def _message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace").strip()


def read(part: Callable[[], bytes]) -> bytes:
    """Some of an answer. Raises OSError where the daemon has gone in the middle of it."""
    try:
        return part()
    except http.client.HTTPException as error:
        raise ConnectionError("the daemon has gone in the middle of its answer") from error
