"""A client of registries that does one thing at a time, right or wrong."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class Answer(NamedTuple):
    """What was answered; header names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(json.loads(self.body)["errors"][0]["code"])

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["errors"][0]["message"])


class Registry:
    """Calls of one caller; ``token`` None for a stranger."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str | None) -> None:
        self.address = url.removesuffix("/api/v1")
        self._session = session
        self._headers: dict[str, str] = {}
        if token is not None:
            text = base64.b64encode(f"token:{token}".encode()).decode()
            self._headers["Authorization"] = f"Basic {text}"

    async def ask(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        """One call; ``path`` may be a Location. Names of headers are written with ``_``."""
        address = path if path.startswith("http") else self.address + path
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.request(
            method, address, data=data, headers=self._headers | sent
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def begin(self, repository: str) -> str:
        """Begin an upload; returns where it goes on."""
        answer = await self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        assert answer.status == 202, answer
        return answer.headers["Location"]

    async def push_blob(self, repository: str, content: bytes) -> str:
        """Push a blob; returns its digest."""
        digest = digest_of(content)
        address = f"{await self.begin(repository)}?digest={digest}"
        answer = await self.ask("PUT", address, content)
        assert answer.status == 201, answer
        return digest

    async def push_image(self, repository: str, tag: str, layers: Sequence[bytes]) -> str:
        """Push an image; returns its digest."""
        config = json.dumps({"layers": len(layers)}).encode()
        for content in (config, *layers):
            await self.push_blob(repository, content)
        return await self.push_manifest(repository, tag, manifest(config, layers))

    async def push_manifest(
        self, repository: str, reference: str, content: bytes, media_type: str = MANIFEST
    ) -> str:
        """Push a manifest; returns its digest."""
        path = f"/v2/{repository}/manifests/{reference}"
        answer = await self.ask("PUT", path, content, Content_Type=media_type)
        assert answer.status == 201, answer
        return answer.headers["Docker-Content-Digest"]


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes, media_type: str) -> dict[str, Any]:
    """A descriptor."""
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def manifest(config: bytes, layers: Sequence[bytes], **more: Any) -> bytes:
    """The manifest of an image."""
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, CONFIG),
        "layers": [described(layer, LAYER) for layer in layers],
        **more,
    }
    return json.dumps(content).encode()


def index(manifests: Sequence[bytes], **more: Any) -> bytes:
    """An index of manifests."""
    listed = [described(content, MANIFEST) for content in manifests]
    content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}
    return json.dumps(content).encode()
