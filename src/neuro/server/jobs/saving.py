"""Saving a running job as an image: its engine pushes it into the platform's registry.

See docs/reference/wire-protocol.md#capacity-kill-and-save.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import msgspec

from neuro.domain.errors import Conflict, InvalidInput, NotFound, Unavailable
from neuro.domain.images import OwnImage, in_registry, own_image
from neuro.domain.jobs import JobStatus
from neuro.domain.permissions import Action
from neuro.domain.uris import ResourceURI
from neuro.engines.base import (
    Commits,
    EngineFault,
    NotReady,
    PullCredentials,
    RunNotFound,
    SaveStep,
    Saving,
)
from neuro.server.access.identity import Identity
from neuro.server.access.people import person_of
from neuro.server.jobs.abilities import committing
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.service import JobService

MOST = 4  # jobs that are saved at once, by one server
LOOK_SECONDS = 1.0  # until it is noticed that the client has left
_STEP = 0.01  # of the whole, between two lines on how far it is
_TOTAL = 1000  # what clients are told as the size of the whole, in thousandths


class JobSaver:
    """Saves jobs, each one once at a time, and for each person one at a time.

    ``image_of`` says by which name the engine had a job's image, and what allows to pull that;
    ``push_token(user, image, base)`` allows to push one image in a user's name, to the host
    ``registry``, and to take layers of its base that are there.
    """

    def __init__(
        self,
        jobs: JobService,
        cluster: str,
        registry: str,
        image_of: Callable[[JobRecord], tuple[str, PullCredentials | None]],
        push_token: Callable[[str, ResourceURI, ResourceURI | None], str],
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._registry = registry
        self._image_of = image_of
        self._push_token = push_token
        self._saving: dict[str, str] = {}  # for whom each is saved

    def image(self, caller: Identity, reference: str) -> OwnImage:
        """The image that a job is to be saved as.

        Raises InvalidInput for one that is not the platform's, or has a digest, and NotPermitted
        or NotFound where the caller may not push it.
        """
        own = self._own(reference, caller.user)
        if own is None:
            raise InvalidInput(
                f"'{reference[:80]}' is not an image of this platform: write image:NAME:TAG for"
                " one of your own, or image:/OWNER/NAME:TAG."
            )
        if "@" in own.version:
            raise InvalidInput("An image is saved under a tag, not a digest: write image:NAME:TAG.")
        unknown = NotFound(f"'{own.uri}' was not found, or is not yours to write.")
        caller.require(own.uri, Action.WRITE, hidden=unknown)
        return own

    def _own(self, reference: str, user: str) -> OwnImage | None:
        """The image of the platform that a reference means to a user, if it is one."""
        reference = in_registry(reference, self._registry)
        return own_image(reference, cluster=self._cluster, user=user)

    async def save(
        self, record: JobRecord, image: OwnImage, shown: str, user: str, gone: Callable[[], bool]
    ) -> AsyncGenerator[bytes]:
        """Save a job as an image of ``user``'s: lines of JSON on how far it is.

        ``shown`` is what the client calls the image. It ends early where the client is ``gone``.
        Raises NotFound for a job that does not run, NotSupported, Conflict and Unavailable.
        """
        engine = committing(self._jobs.engine_of(record), record)
        if record.status is not JobStatus.RUNNING:
            raise NotFound(
                f"Job {record.id} is not running: its status is {record.status}. Only the files of"
                " a running job are there to be saved."
            )
        if record.id in self._saving:
            raise Conflict(f"Job {record.id} is being saved already: wait until that has ended.")
        person = person_of(user)
        if person in self._saving.values():
            raise Conflict(
                "Another job is being saved for you, and one is saved at a time: wait until that"
                " has ended."
            )
        if len(self._saving) >= MOST:
            raise Unavailable(f"{MOST} jobs are being saved now: try again in a moment.")
        self._saving[record.id] = person
        try:
            base, pull = self._image_of(record)
            below = self._own(base, record.owner)
            token = self._push_token(user, image.uri, None if below is None else below.uri)
            push = PullCredentials("token", token)
            target = image.at(self._registry)
            saving = Saving(image=target, push=push, base=base, pull=pull)
            yield _line(status="CommitStarted", details={"container": record.id, "image": shown})
            async for line in _followed(engine, record, saving, gone):
                yield line
            yield _line(status=f"{image}: pushed")
        finally:
            del self._saving[record.id]


async def _followed(
    engine: Commits, record: JobRecord, saving: Saving, gone: Callable[[], bool]
) -> AsyncGenerator[bytes]:
    """Lines on how far an engine is with an image, until all of it is there."""
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[SaveStep | None] = asyncio.Queue()

    def heard(step: SaveStep) -> None:
        loop.call_soon_threadsafe(steps.put_nowait, step)

    working = asyncio.ensure_future(engine.commit(record.id, saving, heard))
    # Told by the same way as the steps, so that it comes behind them.
    working.add_done_callback(lambda _: loop.call_soon(steps.put_nowait, None))
    told = -1.0
    try:
        while True:
            step: SaveStep | None = None
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    step = await steps.get()
            except TimeoutError:
                if gone():
                    raise ConnectionResetError("the client has left") from None
                continue
            if step is None:
                break
            if told < 0:
                yield _line(status="CommitFinished")
                if step.changed:
                    yield _line(status=_changed(step.changed))
            if told < 0 or step.share >= min(1.0, told + _STEP):
                told = step.share
                yield _push_line(told)
        await working
    except RunNotFound:
        raise NotFound(f"Job {record.id} has ended, and its files with it.") from None
    except NotReady as error:
        raise Unavailable(_sentence(error)) from None
    except EngineFault as error:
        raise Conflict(_sentence(error)) from None
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working


def _changed(count: int) -> str:
    files = "1 file" if count == 1 else f"{count} files"
    return f"{files} changed while the job was read: the image may have parts of both"


def _push_line(share: float) -> bytes:
    done = round(share * _TOTAL)
    return _line(
        status="Pushing",
        id="files",
        progress=f"{share:.0%}",
        progressDetail={"current": done, "total": _TOTAL},
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _line(**what: Any) -> bytes:
    return msgspec.json.encode(what) + b"\r\n"
