"""Looking at the other side before and while copying."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

import msgspec

from neuro.client.storage.calls import Calls
from neuro.client.storage.filters import Filter
from neuro.domain.errors import InvalidInput, NotFound, StorageFault
from neuro.domain.storage import FileStatus, FileType
from neuro.domain.uris import ResourceURI


async def optional_status(calls: Calls, uri: ResourceURI) -> FileStatus | None:
    """What is there, or None."""
    try:
        return await calls.status(uri)
    except NotFound:
        return None
    except StorageFault as fault:
        if fault.errno == "ENOTDIR":
            return None
        raise


async def index(calls: Calls, top: ResourceURI, folders: Collection[str]) -> dict[str, FileStatus]:
    """What is in ``top`` and in those of ``folders`` (relative to it) that are there."""
    found: dict[str, FileStatus] = {}
    try:
        await calls.status(top)  # Also tells the two clocks apart.
    except NotFound:
        return found
    pending = [""]
    while pending:
        relative = pending.pop()
        folder = top.child(*relative.split("/")) if relative else top
        async for entry in calls.entries(folder):
            path = f"{relative}/{entry.path}" if relative else entry.path
            found[path] = entry
            if entry.type is FileType.DIRECTORY and path in folders:
                pending.append(path)
    return found


class RemoteEntry(msgspec.Struct, frozen=True):
    """Something below a folder of the storage; ``relative`` to it, with ``/``."""

    relative: str
    status: FileStatus


async def walk(calls: Calls, top: ResourceURI, keep: Filter) -> AsyncGenerator[RemoteEntry, None]:
    """Everything below ``top`` that the filter keeps, folders before what is in them."""
    pending = [""]
    while pending:
        relative = pending.pop()
        folder = top.child(*relative.split("/")) if relative else top
        folders = []
        for entry in sorted([e async for e in calls.entries(folder)], key=lambda it: it.path):
            check_name(entry.path)
            path = f"{relative}/{entry.path}" if relative else entry.path
            is_folder = entry.type is FileType.DIRECTORY
            if not keep.keeps(path, is_folder=is_folder):
                continue
            yield RemoteEntry(path, entry)
            if is_folder:
                folders.append(path)
        pending.extend(reversed(folders))


def check_name(name: str) -> None:
    """Raise InvalidInput for a name that would lead out of the folder it is written into."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidInput(f"The server lists {name!r}, which is not a file name.")
