"""A registry that is as good, or as bad, as a test wants it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from neuro.engines.images.reach import Reach
from tests.engines.archives import entry, layer

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class AnyOfThisMachine(Collection[str]):
    """Registries that may be on this machine: all that a test starts."""

    def __contains__(self, host: object) -> bool:
        return str(host).startswith("127.0.0.1:")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


LOCAL = Reach(AnyOfThisMachine(), AnyOfThisMachine())


def digest_of(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


class SmallRegistry:
    """Repositories with manifests and blobs; how it behaves is set by its attributes.

    ``password`` is asked for by way of ``asks`` ("basic", "bearer"), of user "me". Each answer with
    a layer is cut after ``cut_after`` bytes. ``elsewhere`` is the address that blobs are at.
    Where it ``keeps`` connections, set before it runs, each answers ``answers_each`` requests, if
    that is a number: of the next one it hangs up. ``connections`` counts them.
    """

    def __init__(self) -> None:
        self.password = ""
        self.asks = "bearer"
        self.cut_after: int | None = None
        self.ranges = True
        self.elsewhere = ""
        self.fails: dict[str, tuple[int, bytes]] = {}  # by the path's beginning
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.asked_whether: list[str] = []  # paths of HEAD requests
        self.gives_all = False  # or says so when it is asked by HEAD
        self.hidden: set[str] = set()  # beginnings of paths: layers are given only there
        self.tokens_given = 0
        self.keeps = False
        self.answers_each: int | None = None
        self.connections = 0
        self._manifests: dict[str, tuple[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.address = ""

    # Content

    def blob(self, body: bytes, media_type: str) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        digest = digest_of(body)
        self.blobs[digest] = body
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def document(
        self, repository: str, value: dict[str, Any], media_type: str, tag: str = ""
    ) -> Any:
        """Keep a manifest or an index, under a tag if one is given; its descriptor."""
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **value}).encode()
        for version in (digest_of(body), tag):
            self._manifests[f"{repository}/manifests/{version}"] = media_type, body
        return {"mediaType": media_type, "digest": digest_of(body), "size": len(body)}

    def image(self, repository: str, *names: str | bytes, tag: str = "", **config: Any) -> Any:
        """An image with a layer for each name, which has a file of that name; its descriptor.

        A layer may be a tar too.
        """
        layers, diff_ids = [], []
        for name in names:
            if isinstance(name, bytes):
                packed, diff_id = gzip.compress(name, 1), digest_of(name)
            else:
                packed, diff_id = layer(entry(name, content=name.encode() * 100))
            layers.append(self.blob(packed, LAYER))
            diff_ids.append(diff_id)
        roots = {"type": "layers", "diff_ids": diff_ids}
        body = json.dumps({"rootfs": roots, "config": config}).encode()
        value = {"config": self.blob(body, CONFIG), "layers": layers}
        return self.document(repository, value, MANIFEST, tag)

    def index(self, repository: str, *platforms: tuple[str, Any], tag: str = "") -> Any:
        """An index of documents, each for a platform such as ``linux/amd64``, or for none."""
        entries = []
        for platform, one in platforms:
            os_, _, architecture = platform.partition("/")
            where = {"platform": {"os": os_, "architecture": architecture}} if platform else {}
            entries.append({**one, **where})
        return self.document(repository, {"manifests": entries}, INDEX, tag)

    def copy_without_layers(self, other: SmallRegistry, repository: str = "") -> None:
        """Have what another registry has, but no layer; all of it in ``repository``, if given.

        Of one that is the same, what is there stays.
        """
        for name, document in list(other._manifests.items()):
            _, _, version = name.partition("/manifests/")
            named = f"{repository}/manifests/{version}" if repository else name
            self._manifests[named] = document
        if other is not self:
            self.blobs = {key: one for key, one in other.blobs.items() if one.startswith(b"{")}

    # Answers

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = urlsplit(request.path).path
        if request.command == "HEAD":
            self.asked_whether.append(request.path)
        else:
            self.requests.append((request.path, dict(request.headers.items())))
        for start, (status, body) in self.fails.items():
            if path.startswith(start):
                send(request, status, body)
                return
        if path == "/token":
            self._give_token(request)
        elif not self._knows(request):
            send(request, 401, b"{}", {"WWW-Authenticate": self._challenge()})
        elif "/manifests/" in path:
            kind, body = self._manifests.get(path.removeprefix("/v2/"), ("", b""))
            unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
            if kind:
                send(request, 200, body, {"Content-Type": kind})
            else:
                send(request, 404, json.dumps(unknown).encode())
        else:
            self._send_blob(request, path.rpartition("/")[2])

    def _send_blob(self, request: BaseHTTPRequestHandler, digest: str) -> None:
        if self.elsewhere and "/v2/" in request.path:
            place = f"{self.elsewhere}/{digest}"
            send(request, 307, b"", {"Location": place})
            return
        body = self.blobs.get(digest)
        if body is not None and not body.startswith(b"{") and self.hidden:
            # These repositories' layers are in no other one.
            body = body if any(request.path.startswith(one) for one in self.hidden) else None
        if body is None and request.command == "HEAD" and self.gives_all:
            body = b""
        if body is None:
            send(request, 404, b"not json")
            return
        start = 0
        wanted = request.headers.get("Range")
        status, headers = 200, {}
        if wanted and self.ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            status = 206
            headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
        most = self.cut_after if body.startswith(b"\x1f\x8b") else None
        send(request, status, body[start:], headers, most)

    def _knows(self, request: BaseHTTPRequestHandler) -> bool:
        given = request.headers.get("Authorization", "")
        if "/v2/" not in request.path or not self.password:
            return True
        return given == (self._pair() if self.asks == "basic" else f"Bearer t{self.tokens_given}")

    def _pair(self) -> str:
        return "Basic " + base64.b64encode(f"me:{self.password}".encode()).decode()

    def _challenge(self) -> str:
        if self.asks == "basic":
            return 'Basic realm="here"'
        return f'Bearer realm="{self.address}/token",service="small",scope="repository:x:pull"'

    def _give_token(self, request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Authorization") != self._pair():
            send(request, 401, b'{"errors": [{"message": "wrong password"}]}')
            return
        query = parse_qs(urlsplit(request.path).query)
        assert query == {"service": ["small"], "scope": ["repository:x:pull"]}
        self.tokens_given += 1
        send(request, 200, json.dumps({"token": f"t{self.tokens_given}"}).encode())


def send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    most: int | None = None,
) -> None:
    """Send an answer, and of its body ``most`` bytes."""
    request.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        request.send_header(name, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body[:most])
    if most is not None or request.protocol_version == "HTTP/1.0":
        request.close_connection = True


def serving(registry: SmallRegistry, port: int = 0) -> ThreadingHTTPServer:
    """A server of the registry on the loopback, which is not started yet."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if registry.keeps else "HTTP/1.0"

        def setup(self) -> None:
            super().setup()
            registry.connections += 1
            self.answered = 0

        def do_GET(self) -> None:
            if self.answered == registry.answers_each:
                self.close_connection = True
                return
            self.answered += 1
            registry.answer(self)

        do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


@contextmanager
def running(registry: SmallRegistry) -> Iterator[str]:
    """The registry, at the host and port that this gives."""
    server = serving(registry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        host = f"127.0.0.1:{server.server_port}"
        registry.address = f"http://{host}"
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
