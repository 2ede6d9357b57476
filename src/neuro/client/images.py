"""Images of the platform's registry: which there are, their tags and sizes, removing them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import msgspec

from neuro.client.messages import answered, done, each
from neuro.client.transport import Request
from neuro.domain.errors import NotFound
from neuro.domain.images import OwnImage, StoredFile, own_image
from neuro.domain.uris import ResourceURI

if TYPE_CHECKING:
    from neuro.client.client import Client
    from neuro.client.image_files.progress import LayerProgress

T = TypeVar("T")

_AT_ONCE = 8
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json,"
    " application/vnd.docker.distribution.manifest.v2+json,"
    " application/vnd.docker.distribution.manifest.list.v2+json"
)


class _Catalog(msgspec.Struct, frozen=True):
    repositories: list[str]


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _Part(msgspec.Struct, frozen=True):
    digest: str
    size: int


class _Manifest(msgspec.Struct, frozen=True):
    config: _Part | None = None
    layers: list[_Part] = []
    manifests: list[_Part] = []


class Images:
    """The images that you may see."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport
        self._client = client
        address = urlsplit(client.transport.url)
        # Registries are looked for at the root of a host, wherever the API is.
        self._top = f"{address.scheme}://{address.netloc}"

    @property
    def host(self) -> str:
        """Where Docker finds the registry: ``127.0.0.1:8085``."""
        return urlsplit(self._top).netloc

    def image(self, text: str) -> OwnImage:
        """The image that is meant by ``trainer:v1``, ``image:/bob/trainer``, ``image://…``.

        Raises InvalidInput.
        """
        written = text if text.startswith("image:") else f"image:{text}"
        found = own_image(written, cluster=self._client.cluster, user=self._client.user)
        assert found is not None
        return found

    async def list(self) -> AsyncGenerator[ResourceURI, None]:
        """All of them, by name and without tags."""
        async for page in self._pages("/v2/_catalog", _Catalog):
            for path in page.repositories:
                yield ResourceURI("image", self._client.cluster, tuple(path.split("/")))

    async def tags(self, image: OwnImage) -> AsyncGenerator[str, None]:
        """The tags of an image, by name. Raises NotFound."""
        async for page in self._pages(f"/v2/{image.repository}/tags/list", _Tags):
            for tag in page.tags or ():
                yield tag

    async def digest(self, image: OwnImage) -> str:
        """The digest of the image that a tag leads to. Raises NotFound."""
        request = self._request("HEAD", image, headers={"Accept": _MANIFESTS})
        try:
            async with answered(self._transport, request) as answer:
                return answer.headers["Docker-Content-Digest"]
        except NotFound:
            # An answer to HEAD has no sentence.
            raise NotFound(f"The image '{image}' was not found.") from None

    async def size(self, image: OwnImage) -> int:
        """How many bytes a pull of all its parts takes. Raises NotFound."""
        found = await self._manifest(image)
        parts = [*found.layers, *([found.config] if found.config else [])]
        count = sum(part.size for part in parts)
        for part in found.manifests:
            one = msgspec.structs.replace(image, version=f"@{part.digest}")
            try:
                count += await self.size(one)
            except NotFound:
                continue  # A platform that nobody has pushed.
        return count

    async def remove(self, image: OwnImage, *, with_all_tags: bool = False) -> None:
        """Remove a tag, and the image too where it was its last one.

        ``with_all_tags`` removes the image however many it has. Raises NotFound, NotPermitted.
        """
        digest = await self.digest(image)
        whole = msgspec.structs.replace(image, version=f"@{digest}")
        if not with_all_tags and "@" not in image.version:
            tags = [
                msgspec.structs.replace(image, version=f":{it}") async for it in self.tags(image)
            ]
            others = [tag for tag in tags if tag != image]
            found = await self._transport.gather(map(self.digest, others), limit=_AT_ONCE)
            if digest in found:
                await done(self._transport, self._request("DELETE", image))
                return
        await done(self._transport, self._request("DELETE", whole))

    async def push_file(
        self, path: str | Path, image: OwnImage, progress: LayerProgress | None = None
    ) -> None:
        """Push the image in an OCI layout (a folder, or an archive), or of ``docker save``.

        What the registry has is not sent again. Raises InvalidInput for other files, NotPermitted,
        OSError.
        """
        from neuro.client.image_files.pushing import push
        from neuro.client.image_files.registry import Registry

        registry = Registry(self._transport, self._top)
        await push(self._transport, registry, Path(path), image, progress)

    async def pull_file(
        self, image: OwnImage, path: str | Path, progress: LayerProgress | None = None
    ) -> None:
        """Pull an image into an archive, which is an OCI layout and loads into Docker.

        Where ``path`` is a folder, it becomes a layout. Of an image for several platforms, that of
        this machine is pulled. What broke off goes on where it was. Raises NotFound, OSError.
        """
        from neuro.client.image_files.pulling import pull
        from neuro.client.image_files.registry import Registry

        await pull(Registry(self._transport, self._top), image, self.host, Path(path), progress)

    def files(self) -> AsyncGenerator[StoredFile, None]:
        """Every file of the registry, and why it is there; for administrators."""
        return each(self._transport, "/images/files", (), StoredFile)

    async def _manifest(self, image: OwnImage) -> _Manifest:
        request = self._request("GET", image, headers={"Accept": _MANIFESTS})
        async with answered(self._transport, request) as answer:
            return msgspec.json.decode(await answer.read(), type=_Manifest)

    def _request(
        self, method: str, image: OwnImage, headers: dict[str, str] | None = None
    ) -> Request:
        reference = image.version.rpartition("@")[2].removeprefix(":")
        path = f"{self._top}/v2/{image.repository}/manifests/{reference}"
        return Request(method=method, path=path, headers=headers or {})

    async def _pages(self, path: str, kind: type[T]) -> AsyncGenerator[T, None]:
        while path:
            request = Request(method="GET", path=self._top + path)
            async with answered(self._transport, request) as answer:
                link = answer.headers.get("Link") or ""
                yield msgspec.json.decode(await answer.read(), type=kind)
            path = link.partition("<")[2].partition(">")[0]
