"""Images written to files: an archive or a folder, which is an OCI layout and loads into Docker.

Every byte of an archive follows from the image's manifest, so a copy that broke off goes on where
its file ends. It has another name until it is whole.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from neuro.client.image_files.parts import Descriptor, Manifest
from neuro.client.image_files.progress import LayerProgress
from neuro.client.image_files.registry import Registry
from neuro.domain.errors import InvalidInput

_BLOCK = 512
_RECORD = 20 * _BLOCK  # what the end of an archive is filled up to
_PIECE = 1 << 20


@dataclass(frozen=True)
class Source:
    """The image that is written: one of one platform; ``name`` is what Docker loads it as."""

    registry: Registry
    repository: str
    name: str
    content: bytes
    media_type: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"

    @property
    def blobs(self) -> list[Descriptor]:
        """Its config and layers, each one once."""
        assert self.manifest.config is not None
        parts = [self.manifest.config, *self.manifest.layers]
        return list({part.digest: part for part in parts}.values())


async def write_archive(source: Source, path: Path, progress: LayerProgress) -> None:
    """Write the image as one file. Raises InvalidInput for layers that arrive damaged, OSError."""
    unfinished = path.with_name(f".{path.name}.{source.digest[7:19]}.part")
    with unfinished.open("r+b" if unfinished.exists() else "w+b") as file:
        at = 0
        for piece in _pieces(source):
            if isinstance(piece, bytes):
                file.seek(at)
                if file.read(len(piece)) != piece:
                    file.truncate(at)
                    file.seek(at)
                    file.write(piece)
                at += len(piece)
            else:
                await _fill(source, piece, file, at, progress)
                at += piece.size
        file.truncate(at)
    unfinished.replace(path)


async def write_folder(source: Source, path: Path, progress: LayerProgress) -> None:
    """Write the image as a folder, in which equal blobs may be already."""
    for part in source.blobs:
        target = path / _blob(part.digest)
        if target.exists() and target.stat().st_size == part.size:
            progress.ended(part.digest, "there already")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.part")
        with unfinished.open("r+b" if unfinished.exists() else "w+b") as file:
            await _fill(source, part, file, 0, progress)
            file.truncate(part.size)
        unfinished.replace(target)
    for name, content in _documents(source):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.part")
        unfinished.write_bytes(content)
        unfinished.replace(target)


async def _fill(
    source: Source, part: Descriptor, file: IO[bytes], start: int, progress: LayerProgress
) -> None:
    """Have a blob at a place of a file, of which the beginning may be there.

    Raises InvalidInput where what arrives is damaged; nothing of it stays then.
    """
    known = hashlib.new(part.digest.partition(":")[0])
    file.seek(start)
    done = 0
    while done < part.size and (piece := file.read(min(_PIECE, part.size - done))):
        known.update(piece)
        done += len(piece)
    was_there = done == part.size
    if not was_there:
        file.truncate(start + done)
        file.seek(start + done)
        progress.moved(part.digest, done, part.size)
        async with aclosing(source.registry.blob(source.repository, part, done)) as chunks:
            async for chunk in chunks:
                known.update(chunk)
                file.write(chunk)
                done += len(chunk)
                progress.moved(part.digest, done, part.size)
    if f"{known.name}:{known.hexdigest()}" != part.digest:
        file.truncate(start)
        raise InvalidInput(
            f"The layer {part.digest} arrived damaged, or what an earlier copy left of it was:"
            " pull it again."
        )
    progress.ended(part.digest, "there already" if was_there else "pulled")


def _pieces(source: Source) -> Iterator[bytes | Descriptor]:
    """An archive's bytes, in order; a blob's are those of its descriptor."""
    length = 0
    for name in ("blobs", "blobs/sha256"):
        header = _header(name, None)
        length += len(header)
        yield header
    for name, content in _documents(source):
        header = _header(name, len(content)) + content + _padding(len(content))
        length += len(header)
        yield header
    for part in source.blobs:
        header = _header(_blob(part.digest), part.size)
        yield header
        yield part
        yield _padding(part.size)
        length += len(header) + part.size + len(_padding(part.size))
    end = 2 * _BLOCK
    yield bytes(end + -(length + end) % _RECORD)


def _documents(source: Source) -> Iterator[tuple[str, bytes]]:
    """The files besides blobs; the index of the layout is the last of them."""
    assert source.manifest.config is not None
    layers = [_blob(part.digest) for part in source.manifest.layers]
    # What every version of `docker load` reads.
    saved = {
        "Config": _blob(source.manifest.config.digest),
        "RepoTags": [source.name],
        "Layers": layers,
    }
    listed = {
        "mediaType": source.media_type,
        "digest": source.digest,
        "size": len(source.content),
        "annotations": {
            "io.containerd.image.name": source.name,
            "org.opencontainers.image.ref.name": source.name.rpartition(":")[2],
        },
    }
    yield _blob(source.digest), source.content
    yield "manifest.json", msgspec.json.encode([saved])
    yield "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
    yield "index.json", msgspec.json.encode({"schemaVersion": 2, "manifests": [listed]})


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _header(name: str, size: int | None) -> bytes:
    """An archive's header for a file, or for a folder."""
    info = tarfile.TarInfo(name)
    info.mode = 0o644 if size is not None else 0o755
    info.type = tarfile.REGTYPE if size is not None else tarfile.DIRTYPE
    info.size = size or 0
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
