"""What a daemon of the tests finds in its network: registries, and a name server without names.

``python -m tests.engines.docker_surroundings FOLDER`` runs in that network until its parent ends.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import socket
import sys
import threading
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.engines import docker_image
from tests.engines.small_registry import serving
from tests.engines.taking_registry import TakingRegistry

REGISTRY = 5000  # on the loopback
NAMES = "192.0.2.53"
IMAGE = "pulled/image"
# Of these, each has a name of its own, and comes once a file of that name is in the folder.
HELD = f"127.0.0.1:{REGISTRY}/held/"
ASKING_REGISTRY = 5001  # has the same, for those who have the password
PASSWORD = "secret"
PUSHES = 5002  # takes what is pushed to it, but for the repository ``DENIED``
DENIED = "denied/image"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_TLS = b"\x16"  # begins a handshake
_NO_SUCH_NAME = b"\x81\x83"


@cache
def image(mark: str) -> tuple[bytes, dict[str, bytes]]:
    """The manifest of an image, and its parts by digest.

    No image with another mark is the same: what a daemon has, it does not pull.
    """
    layer = io.BytesIO()
    docker_image.write(layer, ("sh", "true", "echo"), python=False)
    packed = gzip.compress(layer.getvalue(), 1)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"], "Labels": {"mark": mark}},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer.getvalue())]},
        }
    ).encode()
    part = "application/vnd.docker."
    described = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _part(f"{part}container.image.v1+json", config),
        "layers": [_part(f"{part}image.rootfs.diff.tar.gzip", packed)],
    }
    return json.dumps(described).encode(), {_digest(one): one for one in (config, packed)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _part(kind: str, content: bytes) -> dict[str, object]:
    return {"mediaType": kind, "size": len(content), "digest": _digest(content)}


class Registry(BaseHTTPRequestHandler):
    """Has one image, and those that are held."""

    protocol_version = "HTTP/1.1"
    folder = Path()
    asks = False

    def handle_one_request(self) -> None:
        # Daemons with containerd's store try TLS first, and then what a server speaks that says so.
        if self.connection.recv(1, socket.MSG_PEEK) == _TLS:
            self.wfile.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
            self.close_connection = True
        else:
            super().handle_one_request()

    def do_GET(self) -> None:
        repository, _, kind = self.path.removeprefix("/v2/").rpartition("/")[0].rpartition("/")
        name = self.path.rpartition("/")[2]
        manifest, parts = b"", dict[str, bytes]()
        if repository == IMAGE or repository.startswith("held/"):
            manifest, parts = image(repository)
        if repository.startswith("held/"):
            while not (self.folder / repository.removeprefix("held/")).exists():
                time.sleep(0.01)
        if self.asks and not self._has_password:
            self._answer(401, "application/json", b"{}")
        elif self.path == "/v2/":
            self._answer(200, "application/json", b"{}")
        elif manifest and kind == "manifests" and name in ("latest", _digest(manifest)):
            self._answer(200, _MANIFEST, manifest)
        elif kind == "blobs" and name in parts:
            self._answer(200, "application/octet-stream", parts[name])
        else:
            error = {"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}
            self._answer(404, "application/json", json.dumps({"errors": [error]}).encode())

    do_HEAD = do_GET

    @property
    def _has_password(self) -> bool:
        known = base64.b64encode(f"token:{PASSWORD}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {known}"

    def _answer(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.send_header("Docker-Content-Digest", _digest(content))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class AskingRegistry(Registry):
    """Has it for some."""

    asks = True


def answer_names() -> None:
    """Say of every name that there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAMES, 53))
        while True:
            question, who = server.recvfrom(4096)
            server.sendto(
                question[:2] + _NO_SUCH_NAME + question[4:6] + bytes(6) + question[12:], who
            )


def main() -> None:
    threading.Thread(target=answer_names, daemon=True).start()
    Registry.folder = Path(sys.argv[1])
    asking = ThreadingHTTPServer(("127.0.0.1", ASKING_REGISTRY), AskingRegistry)
    threading.Thread(target=asking.serve_forever, daemon=True).start()
    taking = TakingRegistry()
    denied = b'{"errors": [{"code": "DENIED", "message": "it is not yours"}]}'
    taking.fails[f"/v2/{DENIED}/blobs/uploads/"] = 403, denied
    threading.Thread(target=serving(taking, PUSHES).serve_forever, daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", REGISTRY), Registry).serve_forever()


if __name__ == "__main__":
    main()
