"""The Docker Engine API over its socket, as far as the engine needs it: what is sent, what comes.

It blocks: keepers have no event loop that could wait for HTTP, and the server asks in threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from neuro.docker.asking import LIBPOD, Refused
from neuro.docker.images import ImageConfig, Images

_COMMIT_SECONDS = 3600.0  # until the files of a container are copied


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


class _Made(msgspec.Struct, rename="pascal"):
    id: str


class Daemon(Images):
    """Asks one daemon for all that the engine needs, and raises what an ``Asker`` does."""

    def info(self) -> Info:
        return self._get(Info, "/info")

    # Images.

    def check_registry(self, reference: str) -> None:
        """Ask its registry for an image, wherever that is. podman's service does not."""
        self._call("GET", f"/distribution/{quote(reference, safe='/:@')}/json")

    def commit(self, container: str, name: str, tag: str, config: Mapping[str, Any]) -> None:
        """Make an image of a container, which stands still meanwhile."""
        query = {"container": container, "repo": name, "tag": tag}
        self._call("POST", "/commit", query, config, _COMMIT_SECONDS)

    # Networks.

    def network(self, name: str) -> Network | None:
        return self._found(Network, f"/networks/{quote(name, safe='')}")

    def networks(self, label: str) -> list[Network]:
        """Those with a label."""
        return self._get(list[Network], "/networks", filters={"label": [label]})

    def make_network(self, body: Mapping[str, Any]) -> None:
        """``body`` is in the words of this daemon."""
        create = f"{LIBPOD}/networks/create" if self.is_podman else "/networks/create"
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
