"""The folder of a store: where things are in it, its small files, and what is taken away."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from neuro.engines.images.manifests import ImageConfig
from neuro.engines.sandbox.removal import remove_tree

_FOLDERS = (
    *("layers", "merges", "images", "names", "grants", "drafts", "trash", "locks", "downloads"),
)
_T = TypeVar("_T", bound=msgspec.Struct)


class LayerRecord(msgspec.Struct, frozen=True):
    """Of a layer: how large it is, and in which boot of the machine it was made.

    ``implied`` is whether it may have folders that its archive has no entry for.
    """

    size: int
    entries: int
    boot: str
    implied: bool = False


class StoredImage(msgspec.Struct, frozen=True):
    """An image that is here. ``identity`` is the digest of its config.

    ``document`` is the config as registries have it: images that are made of it begin so. Manifests
    are of those who gave it (``GrantRecord``): others may have the same layers as other blobs.
    """

    identity: str
    config: ImageConfig
    document: bytes = b""


class NameRecord(msgspec.Struct, frozen=True):
    """Which image a reference meant, and the digest of the manifest that said so.

    ``grant`` names the grant that the image was had by.
    """

    reference: str
    identity: str
    digest: str
    grant: str = ""


class GrantRecord(msgspec.Struct, frozen=True):
    """That a repository, ``reference``, gave an image whole, by this manifest."""

    reference: str
    identity: str
    digest: str
    manifest: bytes = b""


class Shelves:
    """The folders in ``folder``, each of which holds one kind of thing."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def make(self) -> None:
        """Make what is missing. Raises OSError."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.chmod(self.folder, 0o700)  # by their mode, programs in it are root's, whoever runs them
        for name in _FOLDERS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.folder}/{name}", 0o700)

    def layer(self, diff_id: str) -> str:
        return f"{self.folder}/layers/{hexadecimal(diff_id)}"

    def draft(self, diff_id: str) -> str:
        return f"{self.folder}/drafts/{hexadecimal(diff_id)}"

    def image(self, identity: str) -> str:
        return f"{self.folder}/images/{hexadecimal(identity)}"

    def name(self, reference: str) -> str:
        return f"{self.folder}/names/{_hash(reference)}"

    def layer_lock(self, diff_id: str) -> str:
        """Who shares it keeps the layer, or is about to make it: so nobody waits for it long."""
        return f"{self.folder}/locks/layer-{hexadecimal(diff_id)}"

    def merge(self, chain: str) -> str:
        return f"{self.folder}/merges/{chain}"

    def draft_lock(self, digest: str) -> str:
        """Who has it alone makes the layer, or merges the chain, with this digest."""
        return f"{self.folder}/locks/draft-{hexadecimal(digest)}"

    def grant(self, name: str) -> str:
        """That a repository gave an image, with all its layers."""
        return f"{self.folder}/grants/{name}"

    def given(self, diff_id: str, host: str, digest: str) -> str:
        """That the layer came from this registry, as the blob with this digest."""
        return f"{self.layer(diff_id)}/given/{hexadecimal(digest)}-{_hash(host)}"

    def download(self, source: str, digest: str) -> str:
        """What came of a blob from a repository: another one could send anything instead."""
        return f"{self.folder}/downloads/{_hash(f'{source}@{digest}')}"

    def download_lock(self, source: str, digest: str) -> str:
        return f"{self.folder}/locks/download-{_hash(f'{source}@{digest}')}"

    def fetch_lock(self, source: str, diff_id: str) -> str:
        """Who has it alone brings the layer from there; others need not wait for a slow one."""
        return f"{self.folder}/locks/fetch-{_hash(f'{source}@{diff_id}')}"

    def image_lock(self, identity: str) -> str:
        return f"{self.folder}/locks/image-{hexadecimal(identity)}"

    def listed(self, shelf: str) -> list[str]:
        """What is on one of the shelves."""
        return os.listdir(f"{self.folder}/{shelf}")

    def take_away(self, path: str) -> str | None:
        """Take something out of sight; where it is now, if it was there."""
        trash = f"{self.folder}/trash/{os.urandom(8).hex()}"
        try:
            os.rename(path, trash)
        except FileNotFoundError:
            return None
        return trash

    def throw_away(self, path: str) -> None:
        """Take something out of sight at once, and then apart."""
        trash = self.take_away(path)
        if trash is not None:
            remove(trash)


def remove(trash: str) -> None:
    """Remove what was taken away."""
    with contextlib.suppress(OSError):  # another server removes it too, or it stays until later
        remove_tree(trash)


def grant_of(source: str, digest: str) -> str:
    """What names the grant of the manifest with this digest by a repository."""
    return _hash(f"{source}@{digest}")


def chain_of(diff_ids: Sequence[str]) -> str:
    """What names the folder that layers are merged in."""
    return hashlib.sha256("\n".join(diff_ids).encode()).hexdigest()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def hexadecimal(digest: str) -> str:
    """What names a thing in the store."""
    return digest.rpartition(":")[2]


def write_small(path: str, value: msgspec.Struct) -> None:
    """Put a small file in its place, whole or not at all."""
    draft = f"{path}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(value))
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def read_small(path: str, kind: type[_T]) -> _T | None:
    """What such a file says; None where it is not there, or damaged: then it is made anew."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=kind)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return None
