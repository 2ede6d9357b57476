"""A small registry to which images can be pushed, as badly as a test wants it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.engines.small_registry import SmallRegistry, digest_of, send

_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]+)")


class TakingRegistry(SmallRegistry):
    """Takes uploads besides what its class does; each upload is known by a number.

    Of each body with more than ``takes_at_once`` bytes it keeps so many, and cuts the connection.
    ``mounts`` are pairs of a repository and a digest that it gives away, ``forgets`` whether
    uploads are gone when their connection is. ``starts_at`` is where its addresses of uploads are.
    ``before_upload`` is called when bytes of a blob are about to come. Where it ``knows_whole``
    a manifest is kept so only with its blobs, and ``before_whole`` is called first. It
    ``takes_small`` blobs in one request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.takes_at_once: int | None = None
        self.mounts: set[tuple[str, str]] = set()
        self.forgets = False
        self.starts_at = ""
        self.before_upload: Callable[[], None] = lambda: None
        self.knows_whole = False
        self.before_whole: Callable[[], None] = lambda: None
        self.takes_small = False
        self.uploads: dict[int, bytearray] = {}
        self.asked: list[str] = []
        self.authorizations: set[str] = set()
        self.taken = 0  # bytes of bodies

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked has left
            self._answer(request)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        self.authorizations |= {*request.headers.get_all("Authorization", ())}
        if path != "/token":
            self.asked.append(f"{request.command} {path.partition('/v2/')[2]}")
        match = _UPLOAD.fullmatch(path)
        fails = any(path.startswith(start) for start in self.fails)
        is_reading = request.command in ("GET", "HEAD") and match is None
        if path == "/token" or fails or is_reading or not self._knows(request):
            super().answer(request)
        elif match is not None:
            self._go_on(request, match[1], int(match[2]))
        elif request.command == "POST":
            self._begin(request, path.removeprefix("/v2/").removesuffix("/blobs/uploads/"))
        else:
            body, kind = self._body(request), request.headers["Content-Type"]
            if self.knows_whole and "whole=1" in request.path and (told := self._lacking(body)):
                send(request, 404, json.dumps({"errors": told}).encode())
                return
            repository, _, tag = path.removeprefix("/v2/").partition("/manifests/")
            for version in (tag, digest_of(body)):
                self._manifests[f"{repository}/manifests/{version}"] = kind, body
            send(request, 201, b"", {"Docker-Content-Digest": digest_of(body)})

    def _lacking(self, manifest: bytes) -> list[object]:
        self.before_whole()
        content = json.loads(manifest)
        digests = {one["digest"] for one in (*content["layers"], content["config"])}
        return [
            {"code": "MANIFEST_BLOB_UNKNOWN", "message": "?", "detail": {"digest": digest}}
            for digest in sorted(digests - self.blobs.keys())
        ]

    def manifest(self, repository: str, tag: str) -> tuple[str, bytes]:
        """The media type and the bytes of what has a tag."""
        return self._manifests[f"{repository}/manifests/{tag}"]

    def _begin(self, request: BaseHTTPRequestHandler, repository: str) -> None:
        query = parse_qs(urlsplit(request.path).query)
        if "mount" in query and (query["from"][0], query["mount"][0]) in self.mounts:
            send(request, 201, b"")
            self.blobs[query["mount"][0]] = b"mounted"
            return
        body = self._body(request)
        if "digest" in query and self.takes_small:
            self.blobs[query["digest"][0]] = body
            send(request, 201, b"")
            return
        number = len(self.asked)
        self.uploads[number] = bytearray()
        self._send_place(request, 202, repository, number)

    def _go_on(self, request: BaseHTTPRequestHandler, repository: str, number: int) -> None:
        upload = self.uploads.get(number)
        if upload is None:
            send(request, 404, b"{}")
        elif request.command == "DELETE":
            del self.uploads[number]
            send(request, 204, b"")
        elif request.command == "GET":
            self._send_place(request, 204, repository, number)
        elif request.command == "PATCH":
            self.before_upload()
            start = int(request.headers.get("Content-Range", "0-").partition("-")[0])
            if start != len(upload):
                self._body(request)
                self._send_place(request, 416, repository, number)
            elif (body := self._some(request)) is not None:
                upload += body
                self._send_place(request, 202, repository, number)
            else:
                upload += self._part
                if self.forgets:
                    del self.uploads[number]
        else:
            digest = parse_qs(urlsplit(request.path).query)["digest"][0]
            if digest_of(bytes(upload)) != digest:
                send(request, 400, b'{"errors": [{"message": "the digest is another"}]}')
                return
            self.blobs[digest] = bytes(self.uploads.pop(number))
            send(request, 201, b"")

    def _send_place(
        self, request: BaseHTTPRequestHandler, status: int, repository: str, number: int
    ) -> None:
        last = max(0, len(self.uploads[number]) - 1)
        place = f"{self.starts_at}/v2/{repository}/blobs/uploads/{number}?state={last}"
        send(request, status, b"", {"Location": place, "Range": f"0-{last}"})

    def _some(self, request: BaseHTTPRequestHandler) -> bytes | None:
        """The body, or none where the connection was cut in it; ``_part`` is what came then."""
        size = int(request.headers.get("Content-Length", 0))
        if self.takes_at_once is None or size <= self.takes_at_once:
            return self._body(request)
        self._part = request.rfile.read(self.takes_at_once)
        self.taken += len(self._part)
        request.close_connection = True
        return None

    def _body(self, request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") == "chunked":  # as Docker pushes
            body = b"".join(iter(lambda: _chunk(request), b""))
        else:
            body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.taken += len(body)
        return body


def _chunk(request: BaseHTTPRequestHandler) -> bytes:
    chunk = request.rfile.read(int(request.rfile.readline(), 16))
    request.rfile.readline()
    return chunk
