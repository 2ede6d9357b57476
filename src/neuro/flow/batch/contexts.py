"""What the images of a bake are built from, sent to the storage before the bake is submitted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neuro.client.build_context import Item, context_items, ignored_in
from neuro.client.storage import Progress
from neuro.client.storage.local import LocalFile, LocalFolder, Odd
from neuro.client.storage.transfer import local_fault
from neuro.dockerfile.parser import parse
from neuro.domain.errors import InvalidInput
from neuro.flow.expressions.values import URI

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.flow.evaluate.batch.survey import PlannedImage


async def send_contexts(
    client: Client,
    project_id: str,
    images: Iterable[PlannedImage],
    progress: Progress | None = None,
) -> tuple[PlannedImage, ...]:
    """The images, with contexts in the storage alone.

    A context lies in a folder that is named by its content: later bakes find it there, and one
    that goes on is not changed by them. Raises DockerfileError for a Dockerfile that is wrong,
    InvalidInput and StorageFault for what cannot be sent.
    """
    return tuple([await _sent(client, project_id, image, progress) for image in images])


async def _sent(
    client: Client, project_id: str, image: PlannedImage, progress: Progress | None
) -> PlannedImage:
    top = image.context
    if not isinstance(top, Path):
        return image
    items = _items(top, image.dockerfile_rel)
    storage = client.storage
    folder = storage.uri(f"storage:.flow/{project_id}/images/{_digest(items)}")
    await storage.mkdir(folder, parents=True, exist_ok=True)
    outcome = await storage.upload_items(items, folder, update=True, progress=progress)
    if outcome.failed:
        first = outcome.failed[0]
        raise InvalidInput(
            f"'{first.source}', which the image {image.ref} is built from, could not be sent:"
            f" {first.error} What the build does not need can be left out by a line in"
            " .dockerignore."
        )
    return replace(image, context=URI(str(folder)))


def _items(top: Path, dockerfile: str) -> list[Item]:
    path = top / dockerfile
    try:
        content = path.read_bytes()
    except OSError as error:
        raise local_fault(error, path) from None
    parse(content, os.path.relpath(path))
    patterns, ignore_file = ignored_in(top, dockerfile)
    always = {dockerfile} | ({ignore_file} if ignore_file is not None else set())
    return list(context_items(top, patterns, always))


def _digest(items: Iterable[Item]) -> str:
    """Of all names, modes and bytes. Raises StorageFault."""
    found = hashlib.sha256()
    for item in items:
        if isinstance(item, Odd):
            continue
        found.update(f"{len(item.relative)} {item.relative} ".encode())
        if isinstance(item, LocalFolder):
            found.update(b"folder ")
        else:
            found.update(f"{item.executable:d} {_of_file(item)} ".encode())
    return found.hexdigest()[:32]


def _of_file(item: LocalFile) -> str:
    try:
        with Path(item.path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise local_fault(error, item.path) from None
