"""The Docker Engine API over its socket, as far as the engine needs it: what is sent, what comes.

It blocks: keepers have no event loop that could wait for HTTP, and the server asks in threads.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

_NEWEST = (1, 56)  # that this was seen with; a newer daemon speaks it as well
_OLDEST = (1, 40)
_LIBPOD = "/v4.0.0/libpod"  # the oldest that podman 4 and 5 speak
_COMMIT_SECONDS = 3600.0  # until the files of a container are copied
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


class Device(msgspec.Struct, rename="pascal"):
    """One that the daemon can give to containers; ``id`` is as it is asked for."""

    id: str = msgspec.field(name="ID")


class Registries(msgspec.Struct, rename="pascal"):
    """From where a daemon pulls."""

    mirrors: list[str] | None = None


class Info(msgspec.Struct, rename="pascal"):
    """What the daemon's machine has."""

    cores: int = msgspec.field(name="NCPU")
    mem_total: int
    server_version: str = ""
    operating_system: str = ""
    runtimes: dict[str, Any] | None = None
    registries: Registries | None = msgspec.field(name="RegistryConfig", default=None)
    devices: list[Device] | None = msgspec.field(name="DiscoveredDevices", default=None)
    device_folders: list[str] | None = msgspec.field(name="CDISpecDirs", default=None)


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


class ContainerState(msgspec.Struct, rename="pascal"):
    """How a container is."""

    running: bool = False
    pid: int = 0
    exit_code: int = 0
    out_of_memory: bool = msgspec.field(name="OOMKilled", default=False)
    error: str = ""


class Container(msgspec.Struct, rename="pascal"):
    """One container, looked at by itself."""

    id: str
    state: ContainerState
    image: str = ""
    config: ImageConfig = msgspec.field(default_factory=ImageConfig)


class Listed(msgspec.Struct, rename="pascal"):
    """One container of a list."""

    id: str
    labels: dict[str, str] = {}


class Range(msgspec.Struct, rename="pascal"):
    """Addresses of a network."""

    gateway: str = ""


class Addresses(msgspec.Struct, rename="pascal"):
    """Which addresses a network has."""

    config: list[Range] | None = None


class Network(msgspec.Struct, rename="pascal"):
    """A network of the daemon's."""

    id: str
    name: str
    addresses: Addresses = msgspec.field(name="IPAM", default_factory=Addresses)


class Step(msgspec.Struct, rename="camel"):
    """One line of what the daemon tells of a pull."""

    status: str = ""
    id: str = ""
    progress_detail: dict[str, Any] | None = None
    error: str | None = None


class _Made(msgspec.Struct, rename="pascal"):
    id: str


def chosen_version(offered: Version) -> str:
    """The version to speak. Raises ValueError with a sentence where there is none in common."""
    newest, least = _numbers(offered.api_version), _numbers(offered.least)
    if newest < _OLDEST:
        raise ValueError(
            f"the daemon speaks version {offered.api_version} of the Docker API: this engine needs"
            f" {_text(_OLDEST)} (Docker 19.03) or later"
        )
    if least > _NEWEST:
        raise ValueError(
            f"the daemon speaks version {offered.least} of the Docker API and later, and this"
            f" version of the platform {_text(_NEWEST)} at most: install a newer one"
        )
    return _text(min(newest, _NEWEST))


def _numbers(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


class Daemon:
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
        """``path`` is that of its socket; ``version`` of the API is its own by default.

        A daemon that was replaced by another since ``version`` was chosen is asked again which one
        it speaks. ``seconds`` is how long an answer may take. podman's service has words of its own
        for what it does not understand in Docker's.
        """
        self.is_podman = is_podman
        self._path = path
        self._seconds = seconds
        self._prefix = f"/v{version}" if version else ""

    def version(self) -> Version:
        return self._get(Version, "/version")

    def info(self) -> Info:
        return self._get(Info, "/info")

    # Images.

    def image(self, reference: str) -> Image | None:
        """An image that is here."""
        return self._found(Image, f"/images/{quote(reference, safe='/:@')}/json")

    def check_registry(self, reference: str) -> None:
        """Ask its registry for an image, wherever that is. podman's service does not."""
        self._call("GET", f"/distribution/{quote(reference, safe='/:@')}/json")

    def pull(
        self, name: str, tag: str, credentials: Mapping[str, str] | None, seconds: float
    ) -> Iterator[Step]:
        """Pull an image; ``seconds`` may be between two steps of what is told."""
        path, query = "/images/create", {"fromImage": name, "tag": tag}
        if self.is_podman and name.startswith("127."):
            # A daemon of Docker takes it for granted that a registry of its machine has no TLS.
            reference = f"{name}:{tag}" if tag else name
            path = f"{_LIBPOD}/images/pull"
            query = {"reference": reference, "tlsVerify": "false"}
        headers = {}
        if credentials is not None:
            text = json.dumps(credentials).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(text).decode()
        connection, answer = self._ask("POST", path, query, None, headers, seconds)
        try:
            while line := _read(answer.readline):
                if line.strip():
                    yield msgspec.json.decode(line, type=Step)
        finally:
            connection.close()

    def commit(self, container: str, name: str, tag: str, config: Mapping[str, Any]) -> None:
        """Make an image of a container, which stands still meanwhile."""
        query = {"container": container, "repo": name, "tag": tag}
        self._call("POST", "/commit", query, config, _COMMIT_SECONDS)

    def remove_image(self, reference: str) -> None:
        """Take a name from an image; who is made of it keeps its layers."""
        self._call("DELETE", f"/images/{quote(reference, safe='/:@')}", {"noprune": "1"})

    # Networks.

    def network(self, name: str) -> Network | None:
        return self._found(Network, f"/networks/{quote(name, safe='')}")

    def networks(self, label: str) -> list[Network]:
        """Those with a label."""
        return self._get(list[Network], "/networks", filters={"label": [label]})

    def make_network(self, body: Mapping[str, Any]) -> None:
        """``body`` is in the words of this daemon."""
        create = f"{_LIBPOD}/networks/create" if self.is_podman else "/networks/create"
        self._call("POST", create, body=body)

    def remove_network(self, name: str) -> None:
        self._call("DELETE", f"/networks/{quote(name, safe='')}")

    # Containers.

    def containers(self, label: str) -> list[Listed]:
        """Those with a label, also those that have ended."""
        return self._get(list[Listed], "/containers/json", all="1", filters={"label": [label]})

    def container(self, identity: str) -> Container | None:
        return self._found(Container, f"/containers/{identity}/json")

    def make_container(self, name: str, body: Mapping[str, Any]) -> str:
        """Its id. Without a ``name`` it has one of the daemon's."""
        query = {"name": name} if name else {}
        answer = self._call("POST", "/containers/create", query, body)
        return msgspec.json.decode(answer, type=_Made).id

    def start_container(self, identity: str) -> None:
        self._call("POST", f"/containers/{identity}/start")

    def remove_container(self, identity: str) -> None:
        """End it, if need be, and remove it; nothing where it is gone."""
        try:
            self._call("DELETE", f"/containers/{identity}", {"force": "1", "v": "1"})
        except Refused as refused:
            if refused.status not in (404, 409):  # 409: somebody else removes it now
                raise

    def execute(self, identity: str, body: Mapping[str, Any]) -> None:
        """Start a process in a container that runs."""
        answer = self._call("POST", f"/containers/{identity}/exec", body=body)
        made = msgspec.json.decode(answer, type=_Made).id
        self._call("POST", f"/exec/{made}/start", body={"Detach": True, "Tty": False})

    # Within.

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
            return _read(answer.read)
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
        prefix = "" if path.startswith(_LIBPOD) else self._prefix
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
            return chosen_version(msgspec.json.decode(_read(answer.read), type=Version))
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
        connection = _Connection(self._path, seconds)
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


def _read(part: Callable[[], bytes]) -> bytes:
    """Some of an answer. Raises OSError where the daemon has gone in the middle of it."""
    try:
        return part()
    except http.client.HTTPException as error:
        raise ConnectionError("the daemon has gone in the middle of its answer") from error
