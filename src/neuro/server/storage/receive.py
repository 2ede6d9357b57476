"""From a request's body to the disk: the body is read while a thread writes what came before."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from neuro.domain.errors import InvalidInput
from neuro.domain.frames import FrameReader, Kind
from neuro.server.http.pouring import pour
from neuro.server.storage.bulk import BulkIntake
from neuro.server.storage.faults import faults
from neuro.server.storage.service import StorageService
from neuro.server.storage.staging import Upload


@asynccontextmanager
async def _closing(service: StorageService, close: Callable[[], None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await service.in_thread(close)


async def receive_file(
    request: web.Request,
    service: StorageService,
    fd: int,
    offset: int,
    path: str,
    length: int | None = None,
) -> None:
    """Write the body into an open file from ``offset`` on, and close it.

    Raises InvalidInput where the body has not the announced length; what came is written.
    """
    position = offset

    def take(batch: list[bytes]) -> None:
        nonlocal position
        view = memoryview(b"".join(batch))
        if length is not None and position + len(view) > offset + length:
            raise InvalidInput("The body is longer than its Content-Range says.")
        with faults(path):
            while view:
                count = os.pwrite(fd, view, position)
                position += count
                view = view[count:]

    async with _closing(service, lambda: os.close(fd)):
        await pour(request, service, take)
        if length is not None and position != offset + length:
            raise InvalidInput("The body is shorter than its Content-Range says.")


async def receive_upload(request: web.Request, service: StorageService, upload: Upload) -> None:
    """Take one file's pieces, each checked before it is written, and publish it at the end."""
    reader = FrameReader()

    def take(batch: list[bytes]) -> None:
        for piece in batch:
            for frame in reader.feed(piece):
                if frame.kind != Kind.PART:
                    raise InvalidInput("An upload of one file is made of PART frames.")
                upload.write(frame.parts, frame.size)

    async with _closing(service, upload.close):
        await pour(request, service, take)
        if not reader.ended:
            raise InvalidInput("The upload broke off: continue it.")
        await service.in_thread(upload.finish)


async def receive_bulk(
    request: web.Request, service: StorageService, intake: BulkIntake
) -> list[bytes]:
    """Take many files; returns the lines of the answer."""
    async with _closing(service, intake.close):
        await pour(request, service, intake.feed)
        return await service.in_thread(intake.finish)
