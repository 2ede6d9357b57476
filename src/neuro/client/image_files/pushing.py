"""Pushing an image that is in files."""

from __future__ import annotations

from pathlib import Path

from neuro.client.image_files.parts import Descriptor
from neuro.client.image_files.progress import LayerProgress, Silent
from neuro.client.image_files.reading import StoredImage, read
from neuro.client.image_files.registry import Registry
from neuro.client.transport import Transport
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage

_AT_ONCE = 4


async def push(
    transport: Transport,
    registry: Registry,
    path: Path,
    image: OwnImage,
    progress: LayerProgress | None,
) -> None:
    """Push what is in a folder or an archive; the image appears when all of it is there."""
    if "@" in image.version:
        raise InvalidInput(f"'{image}' has a digest, which is not known before: write a tag.")
    stored, told = read(path), progress or Silent()
    await registry.check_push(image.repository)
    blobs = [_push_blob(registry, image.repository, stored, part, told) for part in stored.blobs]
    await transport.gather(blobs, limit=_AT_ONCE)
    *parts, whole = stored.documents
    for one in parts:
        await registry.put_manifest(image.repository, one.digest, one.content, one.media_type)
    tag = image.version.removeprefix(":")
    await registry.put_manifest(image.repository, tag, whole.content, whole.media_type)


async def _push_blob(
    registry: Registry,
    repository: str,
    stored: StoredImage,
    part: Descriptor,
    progress: LayerProgress,
) -> None:
    if await registry.has_blob(repository, part.digest):
        progress.ended(part.digest, "there already")
        return
    path = stored.blobs[part]
    was_sent = await registry.push_blob(
        repository,
        part,
        lambda: stored.files.open(path),
        lambda done: progress.moved(part.digest, done, part.size),
    )
    progress.ended(part.digest, "pushed" if was_sent else "there already")
