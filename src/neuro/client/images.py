"""Images of the platform's registry: which there are, their tags and sizes, removing them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from neuro.client.messages import answered, below, done, each, get, lines, send, tell
from neuro.client.transport import Request
from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.image_upkeep import (
    ImageQuota,
    ImageQuotaRequest,
    ImageRules,
    ImageRulesInForce,
    ImageTag,
    ScrubbedFile,
    StoredFile,
)
from neuro.domain.images import OwnImage, own_image
from neuro.domain.uris import ResourceURI

if TYPE_CHECKING:
    from neuro.client.client import Client
    from neuro.client.image_files.progress import LayerProgress

T = TypeVar("T")

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


class ImageSize(NamedTuple):
    """An image that a tag leads to; ``size`` in bytes is what a pull of all its parts takes."""

    digest: str
    size: int


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

        Also by ``127.0.0.1:8085/bob/trainer``, as Docker finds it. Raises InvalidInput, also for an
        image of another registry.
        """
        written = text if text.startswith("image:") else f"image:{self._path(text)}"
        found = own_image(written, cluster=self._client.cluster, user=self._client.user)
        assert found is not None
        return found

    def _path(self, text: str) -> str:
        """A name without a scheme. Its first part is a registry where Docker takes it for one."""
        first, slash, rest = text.partition("/")
        if slash and first == self.host:
            return f"/{rest}"
        if slash and ("." in first or ":" in first or first == "localhost"):
            raise InvalidInput(
                f"'{text}' is of the registry {first}, and not of the platform's: write"
                " image:NAME:TAG."
            )
        return text

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
            await self.look(image)  # an answer to HEAD has no sentence
            raise NotFound(f"The image '{image}' was not found.") from None

    async def size(self, image: OwnImage) -> int:
        """How many bytes a pull of all its parts takes. Raises NotFound."""
        return (await self.look(image)).size

    async def look(self, image: OwnImage) -> ImageSize:
        """Digest and size at once. Raises NotFound."""
        request = self._request("GET", image, headers={"Accept": _MANIFESTS})
        request = msgspec.structs.replace(request, params=(("look", "1"),))  # It is no pull.
        async with answered(self._transport, request) as answer:
            digest = answer.headers["Docker-Content-Digest"]
            found = msgspec.json.decode(await answer.read(), type=_Manifest)
        parts = [*found.layers, *([found.config] if found.config else [])]
        count = sum(part.size for part in parts)
        for part in found.manifests:
            one = msgspec.structs.replace(image, version=f"@{part.digest}")
            try:
                count += await self.size(one)
            except NotFound:
                continue  # A platform that nobody has pushed.
        return ImageSize(digest, count)

    async def remove(self, image: OwnImage, *, with_all_tags: bool = False) -> None:
        """Remove a tag. The registry deletes an image that has none for a day.

        ``with_all_tags`` removes the image that the tag leads to, with all of its tags, as a digest
        does. Raises NotFound, NotPermitted.
        """
        if with_all_tags and "@" not in image.version:
            digest = await self.digest(image)
            image = msgspec.structs.replace(image, version=f"@{digest}")
        await done(self._transport, self._request("DELETE", image))

    async def tags_in_full(self, image: OwnImage) -> AsyncGenerator[ImageTag, None]:
        """The tags of an image, by name, with when they were pushed and pulled. Raises NotFound."""
        path, after = f"/images/tags/{image.repository}", ""
        while page := await get(self._transport, path, list[ImageTag], params=[("after", after)]):
            for tag in page:
                yield tag
            after = page[-1].tag

    async def rules(self, uri: ResourceURI) -> ImageRulesInForce:
        """The rules that hold for an image, or for all whose URIs begin so."""
        return await get(self._transport, _rules(uri), ImageRulesInForce)

    async def set_rules(self, uri: ResourceURI, rules: ImageRules) -> None:
        """Let rules hold in place of those of the same URI. Raises InvalidInput, NotPermitted."""
        await tell(self._transport, "PUT", _rules(uri), rules)

    async def remove_rules(self, uri: ResourceURI) -> None:
        """Let the rules of a URI hold no more. Raises NotFound where it has none itself."""
        await tell(self._transport, "DELETE", _rules(uri))

    async def quota(self, owner: str) -> ImageQuota:
        """How much somebody's images may take, and do take, in bytes."""
        return await get(self._transport, below("/images/quotas", owner), ImageQuota)

    async def quotas(self) -> AsyncGenerator[ImageQuota, None]:
        """The same of all who have images; for administrators."""
        after, path = "", "/images/quotas"
        while page := await get(self._transport, path, list[ImageQuota], params=[("after", after)]):
            for quota in page:
                yield quota
            after = page[-1].owner

    async def set_quota(self, owner: str, size: int | None) -> ImageQuota:
        """Let somebody's images take so many bytes; for administrators.

        0 for no limit, None for what all have.
        """
        path = below("/images/quotas", owner)
        return await send(self._transport, "PUT", path, ImageQuotaRequest(size=size), ImageQuota)

    def scrub(self) -> AsyncGenerator[ScrubbedFile, None]:
        """Have every file of the registry read again; each one when that is done.

        For administrators. Raises Conflict where somebody does so already.
        """
        request = Request(method="POST", path="/images/scrub")
        return lines(self._transport, request, ScrubbedFile)

    async def check_push(self, image: OwnImage) -> None:
        """Ask whether something may be pushed as an image. Raises NotPermitted, and what a quota
        that is used up would.
        """
        from neuro.client.image_files.registry import Registry

        await Registry(self._transport, self._top).check_push(image.repository)

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


def _rules(uri: ResourceURI) -> str:
    return "/images/rules/" + "/".join(uri.segments)
