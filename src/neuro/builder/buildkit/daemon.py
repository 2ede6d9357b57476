"""A Docker daemon that builds, as far as its API says something of that.

Every method raises OSError where the daemon is away, Refused for what it refuses.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Mapping, Sequence

import msgspec

from neuro.docker.asking import Refused
from neuro.docker.images import Images

_TRACE, _IMAGE = "moby.buildkit.trace", "moby.image.id"
_PATIENCE = 30.0  # seconds for a session to be taken
_LONGEST = 30 * 86400.0  # that a command may say nothing: the job has a time limit of its own
_MOST_HEAD = 64 << 10


class Record(msgspec.Struct):
    """One line of what the daemon tells of a build."""

    id: str = ""
    aux: msgspec.Raw = msgspec.Raw()
    error: str = ""

    @property
    def trace(self) -> str:
        """How far it is, in BuildKit's words; empty for other lines."""
        return msgspec.json.decode(self.aux, type=str) if self.id == _TRACE else ""

    @property
    def image(self) -> str:
        """The id of what was made; empty for other lines."""
        return msgspec.json.decode(self.aux, type=_Made).id if self.id == _IMAGE else ""


class _Made(msgspec.Struct):
    id: str = msgspec.field(name="ID")


class BuildingDaemon(Images):
    """Asks one daemon to build."""

    def build(self, query: Mapping[str, str]) -> Generator[Record, None, None]:
        """Build, and tell of it as it goes on. The build ends when nobody reads any more."""
        return self._told(Record, "/build", query, {}, _LONGEST)

    def session(self, identity: str, methods: Sequence[str]) -> socket.socket:
        """A connection on which the daemon calls ``methods`` for a build of this session."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_PATIENCE)
            connection.connect(self._path)
            lines = [
                f"POST {self._prefix}/session HTTP/1.1",
                "Host: docker",
                "Connection: Upgrade",
                "Upgrade: h2c",
                f"X-Docker-Expose-Session-Uuid: {identity}",
                "X-Docker-Expose-Session-Name: neuro",
                f"X-Docker-Expose-Session-Sharedkey: {identity}",
                *(f"X-Docker-Expose-Session-Grpc-Method: {one}" for one in methods),
            ]
            connection.sendall("\r\n".join((*lines, "", "")).encode())
            _check_upgrade(connection)
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection


def _check_upgrade(connection: socket.socket) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        # Byte by byte: what follows is the session's.
        piece = connection.recv(1)
        if not piece or len(head) > _MOST_HEAD:
            raise ConnectionError("the daemon does not answer as one")
        head += piece
    status = head.split(b" ", 2)[1:2]
    if status != [b"101"]:
        line = head.partition(b"\r\n")[0].decode("utf-8", "replace")
        raise Refused(400, f"it has no sessions for builds ({line})")
