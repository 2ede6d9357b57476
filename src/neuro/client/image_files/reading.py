"""Images in files: OCI layouts, as folders and in archives, and what ``docker save`` writes.

Nothing is unpacked: an archive is read where its members are. What a file says is not believed: the
registry compares every digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

import msgspec

from neuro.client.image_files.parts import (
    CONFIG,
    INDEX,
    LAYER,
    MANIFEST,
    MAX_DOCUMENT,
    MAX_PARTS,
    Descriptor,
    Manifest,
    document,
    manifest_in,
)
from neuro.domain.errors import InvalidInput

_MAX_MEMBERS = 100_000
_MAX_DEPTH = 4  # of indexes in indexes
_GZIP = b"\x1f\x8b"
_TITLES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Files(Protocol):
    """Files by their names in a layout. Raises KeyError for one that is not there."""

    name: str

    def size(self, path: str) -> int: ...

    def open(self, path: str) -> IO[bytes]: ...


@dataclass(frozen=True)
class Document:
    """A manifest or an index as it is pushed."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass(frozen=True)
class StoredImage:
    """An image in files.

    ``blobs`` are its parts with the file of each. The last of ``documents`` is the image itself,
    and those before it are what it consists of.
    """

    files: Files
    documents: list[Document] = field(default_factory=list)
    blobs: dict[Descriptor, str] = field(default_factory=dict)


def read(path: Path) -> StoredImage:
    """The image in a folder or an archive. Raises InvalidInput where there is not exactly one."""
    files = Folder(path) if path.is_dir() else Archive(path)
    if _has(files, "index.json"):
        return _layout(files)
    # In a folder its names could lead anywhere.
    if isinstance(files, Archive) and _has(files, "manifest.json"):
        return _saved(files)
    raise InvalidInput(
        f"{path} has no image: it needs an OCI layout, or what `docker save NAME -o FILE` writes."
    )


class Folder:
    """A layout as a folder."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def size(self, path: str) -> int:
        try:
            return (self._path / path).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(path) from None

    def open(self, path: str) -> IO[bytes]:
        try:
            return (self._path / path).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise KeyError(path) from None


class Archive:
    """A layout in an archive, which is looked through once. Raises InvalidInput for other files."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with path.open("rb") as file:
            if file.read(2) == _GZIP:
                raise InvalidInput(f"{path} is compressed: unpack it with `gunzip` first.")
        try:
            with tarfile.open(path, "r:") as tar:
                self._places = dict(_places(tar))
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidInput(
                f"{path} is not a whole archive ({error}): `docker save NAME -o FILE` writes one."
            ) from None

    def size(self, path: str) -> int:
        return self._places[path][1]

    def open(self, path: str) -> IO[bytes]:
        start, size = self._places[path]
        return io.BufferedReader(_Part(self._path, start, size), 1 << 16)


def _places(tar: tarfile.TarFile) -> Iterator[tuple[str, tuple[int, int]]]:
    """Where the content of each file begins, and its size; links are what they lead to."""
    found: dict[str, tuple[int, int]] = {}
    for count, member in enumerate(tar):
        if count == _MAX_MEMBERS:
            raise InvalidInput(f"{tar.name!s} has more than {_MAX_MEMBERS} files.")
        name = os.path.normpath(member.name)
        if member.isreg() and not member.issparse():
            found[name] = member.offset_data, member.size
        elif member.issym():
            # `docker save` once wrote layers that two images share so.
            target = os.path.normpath(f"{name}/../{member.linkname}")
            if target in found:
                found[name] = found[target]
        elif member.islnk() and os.path.normpath(member.linkname) in found:
            found[name] = found[os.path.normpath(member.linkname)]
    yield from found.items()


class _Part(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file = path.open("rb", buffering=0)
        self._start, self._size = start, size
        self._file.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + max(0, base + offset)) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = max(0, self._size - self.tell())
        return self._file.readinto(buffer[:left]) or 0

    def close(self) -> None:
        self._file.close()
        super().close()


def _has(files: Files, path: str) -> bool:
    try:
        files.size(path)
    except KeyError:
        return False
    return True


def _content(files: Files, path: str) -> bytes:
    """A document. Raises InvalidInput for one that is missing or too large."""
    try:
        with files.open(os.path.normpath(path)) as file:
            content = file.read(MAX_DOCUMENT + 1)
    except KeyError:
        raise InvalidInput(f"{files.name} has no {path}: it is damaged, or not whole.") from None
    if len(content) > MAX_DOCUMENT:
        raise InvalidInput(f"{path} in {files.name} is larger than 4 MiB.")
    return content


# OCI layouts.


def _layout(files: Files) -> StoredImage:
    where = f"index.json in {files.name}"
    index = manifest_in(_content(files, "index.json"), where)
    if len(index.manifests) != 1:
        names = ", ".join(sorted(_titles(index))) or "without names"
        raise InvalidInput(
            f"{files.name} has {len(index.manifests)} images ({names}): it may have one. Save the"
            " one that you want alone: docker save NAME -o FILE"
        )
    image = StoredImage(files)
    _add(image, index.manifests[0], 0)
    return image


def _titles(index: Manifest) -> Iterator[str]:
    for one in index.manifests:
        notes = one.annotations or {}
        yield from [notes[title][:80] for title in _TITLES if title in notes][:1]


def _add(image: StoredImage, part: Descriptor, depth: int) -> None:
    if depth > _MAX_DEPTH or len(image.documents) > MAX_PARTS:
        raise InvalidInput(f"The indexes in {image.files.name} are too deep or too many.")
    path = _blob(part.digest)
    content = _content(image.files, path)
    found = manifest_in(content, f"{path} in {image.files.name}")
    for one in found.manifests:
        # Docker writes an index of all platforms, and the image of one.
        if _has(image.files, _blob(one.digest)):
            _add(image, one, depth + 1)
    for one in (*found.layers, *([found.config] if found.config else ())):
        if not _has(image.files, _blob(one.digest)):
            raise InvalidInput(f"{image.files.name} has no {_blob(one.digest)}: it is not whole.")
        if image.files.size(_blob(one.digest)) != one.size:
            raise InvalidInput(f"{_blob(one.digest)} in {image.files.name} is damaged.")
        image.blobs[_plain(one)] = _blob(one.digest)
    usual = INDEX if found.manifests else MANIFEST
    kind = found.media_type or part.media_type or usual
    image.documents.append(Document(content, kind))


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _plain(part: Descriptor) -> Descriptor:
    """A part as the key of a table."""
    return Descriptor(part.media_type, part.digest, part.size)


# What `docker save` writes, and wrote before it wrote OCI layouts.


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _RootFilesystem(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []


class _Config(msgspec.Struct, frozen=True):
    rootfs: _RootFilesystem = msgspec.field(default_factory=_RootFilesystem)


def _saved(files: Files) -> StoredImage:
    where = f"manifest.json in {files.name}"
    images = document(_content(files, "manifest.json"), list[_Saved], where)
    if len(images) != 1:
        names = ", ".join(name[:80] for one in images for name in one.repo_tags or ())
        raise InvalidInput(
            f"{files.name} has {len(images)} images ({names or 'without names'}): it may have one."
            " Save the one that you want alone: docker save NAME -o FILE"
        )
    [saved] = images
    content = _content(files, saved.config)
    config = document(content, _Config, f"{saved.config} in {files.name}")
    if len(saved.layers) != len(config.rootfs.diff_ids) or len(saved.layers) > MAX_PARTS:
        raise InvalidInput(f"{where} does not name the layers that its config names.")
    image = StoredImage(files)
    described = Descriptor(CONFIG, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))
    image.blobs[described] = os.path.normpath(saved.config)
    layers = []
    paths = map(os.path.normpath, saved.layers)
    for path, digest in zip(paths, config.rootfs.diff_ids, strict=True):
        layer = _layer(files, path, digest)
        layers.append(layer)
        image.blobs[layer] = path
    manifest: Mapping[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _told(described),
        "layers": [_told(layer) for layer in layers],
    }
    written = msgspec.json.encode(manifest)
    manifest_in(written, where)  # its digests are those of a config that somebody wrote
    image.documents.append(Document(written, MANIFEST))
    return image


def _layer(files: Files, path: str, digest: str) -> Descriptor:
    """A layer; ``digest`` is that of its archive, which may be compressed here."""
    try:
        size = files.size(path)
        with files.open(path) as file:
            if file.read(2) != _GZIP:
                return Descriptor(LAYER, digest, size)
            file.seek(0)
            known = hashlib.file_digest(_readable(file), "sha256")
    except KeyError:
        raise InvalidInput(f"{files.name} has no {path}: it is damaged, or not whole.") from None
    return Descriptor(f"{LAYER}+gzip", f"sha256:{known.hexdigest()}", size)


def _readable(file: IO[bytes]) -> io.BufferedReader:
    assert isinstance(file, io.BufferedReader)
    return file


def _told(part: Descriptor) -> dict[str, object]:
    return {"mediaType": part.media_type, "digest": part.digest, "size": part.size}
