"""Pulling an image into files."""

from __future__ import annotations

from pathlib import Path

from neuro.client.image_files.parts import INDEXES, manifest_in, of_this_machine
from neuro.client.image_files.progress import LayerProgress, Silent
from neuro.client.image_files.registry import Registry
from neuro.client.image_files.writing import Source, write_archive, write_folder
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage

_MAX_DEPTH = 4


async def pull(
    registry: Registry,
    image: OwnImage,
    host: str,
    path: Path,
    progress: LayerProgress | None,
) -> None:
    """Pull an image into a folder, where there is one, or an archive."""
    source = await _source(registry, image, host)
    if path.is_dir():
        await write_folder(source, path, progress or Silent())
    else:
        await write_archive(source, path, progress or Silent())


async def _source(registry: Registry, image: OwnImage, host: str) -> Source:
    reference = image.version.rpartition("@")[2].removeprefix(":")
    for _ in range(_MAX_DEPTH):
        content, kind = await registry.manifest(image.repository, reference)
        found = manifest_in(content, f"The manifest of '{image}'")
        if found.config is not None and kind not in INDEXES:
            tag = image.version.partition("@")[0] or ":latest"
            name = f"{host}/{image.repository}{tag}"
            return Source(registry, image.repository, name, content, kind, found)
        own = of_this_machine(found.manifests)
        if own is None:
            raise InvalidInput(f"'{image}' has no image for a machine like this one.")
        reference = own.digest
    raise InvalidInput(f"'{image}' is an index of indexes that is too deep.")
