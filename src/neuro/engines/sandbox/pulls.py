"""Images that are fetched for runs which wait for them, before any process is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from neuro.domain.images import is_executor_image
from neuro.engines.base import EngineFault, NotReady, RunRef, RunSpec, Waiting, WaitReason
from neuro.engines.sandbox.images import HOST, Images, RegistryAway, Root, with_image
from neuro.engines.sandbox.launch import Request


class Withdrawn(EngineFault):
    """Nobody wants the run any more."""


class Pulls:
    """Fetches in threads, and tells how far that is; a stop ends the waiting at once."""

    def __init__(self, images: Images, tell: Callable[[Waiting], None], offline_host: bool) -> None:
        """``offline_host`` is as in the engine's settings."""
        self._images = images
        self._tell = tell
        self._offline_host = offline_host
        self._wanted: dict[RunRef, asyncio.Future[None]] = {}
        self._held: dict[RunRef, Root] = {}

    async def in_image(self, spec: RunSpec, request: Request) -> Request:
        """The request of a run, in its image. Raises EngineFault, NotReady where that may change.

        The platform's own runs and commands, and ``HOST``, stay on the machine's userland.
        """
        if spec.control or spec.image in HOST or is_executor_image(spec.image):
            return request
        try:
            root = await self._root(spec)
        except RegistryAway as away:
            if not (away.is_public and self._offline_host):
                raise
            self._say(spec, f"It runs on this machine's own userland: {away}")
            return request
        except OSError as error:
            raise NotReady(f"its image cannot be kept here: {error}") from error
        self._held[RunRef(spec.job_id, spec.run)] = root
        return with_image(request, spec, root)

    def release(self, ref: RunRef) -> None:
        """Hold a run's image no more: it does so itself, or will never be."""
        root = self._held.pop(ref, None)
        if root is not None:
            root.release()

    async def _root(self, spec: RunSpec) -> Root:
        """The run's image. Raises what ``Images.ready`` does, and Withdrawn."""
        ref, loop = RunRef(spec.job_id, spec.run), asyncio.get_running_loop()
        stopped: asyncio.Future[None] = loop.create_future()

        def told(progress: float) -> None:
            if stopped.done():
                raise Withdrawn("the run was stopped while its image was pulled")
            loop.call_soon_threadsafe(self._waits, spec, stopped, progress)

        fetching = asyncio.ensure_future(
            asyncio.to_thread(self._images.ready, spec.image, spec.pull, told)
        )
        self._wanted[ref] = stopped
        try:
            either: list[asyncio.Future[Any]] = [fetching, stopped]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():  # the thread ends when it tells how far it is
                raise Withdrawn("the run was stopped while its image was pulled")
            return fetching.result()
        except BaseException:
            fetching.add_done_callback(_forget)
            raise
        finally:
            self.withdraw(ref)
            del self._wanted[ref]

    def withdraw(self, ref: RunRef) -> None:
        """Fetch no more for a run, if anything is."""
        stopped = self._wanted.get(ref)
        if stopped is not None and not stopped.done():
            stopped.set_result(None)

    def _say(self, spec: RunSpec, sentence: str, progress: float | None = None) -> None:
        """Tell the run's owner something about its image."""
        self._tell(
            Waiting(
                ref=RunRef(spec.job_id, spec.run),
                at=datetime.now(UTC),
                reason=WaitReason.PULLING,
                description=sentence,
                progress=progress,
            )
        )

    def _waits(self, spec: RunSpec, stopped: asyncio.Future[None], progress: float) -> None:
        if not stopped.done():  # else it is told late
            self._say(spec, "Its image is pulled", min(1.0, max(0.0, progress)))


def _forget(fetching: asyncio.Future[Root]) -> None:
    if not fetching.cancelled() and fetching.exception() is None:
        fetching.result().release()
