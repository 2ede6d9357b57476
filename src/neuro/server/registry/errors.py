"""What a registry refuses, with the codes of the OCI distribution specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuro.domain.errors import PlatformError

MOST_MISSING = 256  # blobs that one answer tells of


class RegistryError(PlatformError):
    """A refusal whose ``code`` is one that clients of registries know."""

    def __init__(self, code: str, status: int, message: str, detail: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.detail = detail


class MissingBlobs(RegistryError):
    """A manifest that was to be kept only with its blobs; ``details`` name what is missing."""

    def __init__(self, name: str, digests: Sequence[str]) -> None:
        told = digests[:MOST_MISSING]
        super().__init__(
            "MANIFEST_BLOB_UNKNOWN",
            404,
            f"The image '{name}' does not have all the blobs that its manifest names: push those"
            " that are missing, and then the manifest again.",
        )
        self.details = [{"digest": digest} for digest in told]


class WrongOffset(RegistryError):
    """A piece of an upload that does not begin where the upload ends; ``size`` is what is there."""

    def __init__(self, size: int, message: str) -> None:
        super().__init__("RANGE_INVALID", 416, message)
        self.size = size


def unknown_repository(name: str) -> RegistryError:
    """Absent, or hidden from the caller: they cannot tell which."""
    return RegistryError(
        "NAME_UNKNOWN",
        404,
        f"The image 'image:/{name}' was not found, or you may not see it: `neuro image ls` lists"
        " those that you may see.",
        {"name": name},
    )


def unknown_manifest(name: str, reference: str) -> RegistryError:
    """No tag, or no manifest of that digest."""
    joint = "@" if ":" in reference else ":"
    return RegistryError(
        "MANIFEST_UNKNOWN",
        404,
        f"The image 'image:/{name}{joint}{reference}' was not found: `neuro image tags"
        f" image:/{name}` lists the tags that there are.",
        {"reference": reference},
    )


def unknown_blob(name: str, digest: str) -> RegistryError:
    """The repository has no such blob, whatever others have."""
    return RegistryError(
        "BLOB_UNKNOWN",
        404,
        f"The image '{name}' has no blob {digest}: push it again.",
        {"digest": digest},
    )


def unknown_upload() -> RegistryError:
    """Ended, of another repository, or never begun."""
    return RegistryError(
        "BLOB_UPLOAD_UNKNOWN",
        404,
        "This upload was not found: it has ended, or was left alone for too long. Push again.",
    )


def invalid_manifest(message: str) -> RegistryError:
    """A manifest that cannot be kept, and why."""
    return RegistryError("MANIFEST_INVALID", 400, message)
