"""Pulling an image into files."""

from __future__ import annotations

import errno
import hashlib
import tarfile
from pathlib import Path

from neuro.client.image_files.parts import INDEXES, manifest_in, of_this_machine
from neuro.client.image_files.progress import LayerProgress, Silent
from neuro.client.image_files.registry import Registry
from neuro.client.image_files.writing import Source, write_archive, write_folder
from neuro.domain.errors import InvalidInput
from neuro.domain.images import OwnImage

_MAX_DEPTH = 4
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


async def pull(
    registry: Registry,
    image: OwnImage,
    host: str,
    path: Path,
    progress: LayerProgress | None,
) -> None:
    """Pull an image into a folder, where there is one, or an archive.

    Raises InvalidInput for what arrives damaged, and where files that are no image's would be
    written over; OSError.
    """
    _check_place(path)
    source = await _source(registry, image, host)
    write = write_folder if path.is_dir() else write_archive
    try:
        await write(source, path, progress or Silent())
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)  # a file that is open has no name
        raise


def _check_place(path: Path) -> None:
    """An image takes the place of an earlier one, and of nothing else."""
    if path.is_dir():
        if not (path / "blobs").is_dir() and any(path.iterdir()):
            raise InvalidInput(
                f"{path} has other files than an image's: name a new folder, such as {path}/image/"
            )
    elif not path.exists():
        if not path.parent.is_dir():
            raise InvalidInput(f"There is no folder {path.parent}: make it first.")
    elif not path.is_file() or (path.stat().st_size and not tarfile.is_tarfile(path)):
        raise InvalidInput(f"{path} is there, and is not an image: name another file.")


def _check_digest(content: bytes, reference: str, image: OwnImage) -> None:
    algorithm, colon, digest = reference.partition(":")  # A tag has no colon.
    if colon and hashlib.new(algorithm, content).hexdigest() != digest:
        raise InvalidInput(f"The manifest of '{image}' arrived damaged: pull it again.")


async def _source(registry: Registry, image: OwnImage, host: str) -> Source:
    reference = image.version.rpartition("@")[2].removeprefix(":")
    for _ in range(_MAX_DEPTH):
        content, kind = await registry.manifest(image.repository, reference)
        _check_digest(content, reference, image)
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
