"""Images that are fetched for runs which wait for them, before any process is theirs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from subprocess import SubprocessError
from typing import Any

import msgspec

from neuro.domain.images import is_executor_image, is_host_image
from neuro.engines.base import (
    EngineFault,
    Event,
    NotReady,
    RunRef,
    RunSpec,
    Started,
    Waiting,
    WaitReason,
)
from neuro.engines.images.stopping import Stop
from neuro.engines.sandbox import drivers
from neuro.engines.sandbox.images import Images, RegistryAway, Root, with_image
from neuro.engines.sandbox.launch import Request

_AT_ONCE = 16  # images that are fetched, or found to be here, in threads of their own
_OF_ONE = 4  # of them for one person's jobs, so that nobody has to wait for another's registry
_TURN_SECONDS = 0.5  # without a turn, until the owner is told


class Withdrawn(EngineFault):
    """Nobody wants the run any more."""


class Pulls:
    """Fetches in threads of its own, and tells how far that is; a stop ends it at once."""

    def __init__(self, images: Images, tell: Callable[[Waiting], None], offline_host: bool) -> None:
        """``offline_host`` is as in the engine's settings."""
        self._images = images
        self._tell = tell
        self._offline_host = offline_host
        self._threads = ThreadPoolExecutor(_AT_ONCE, "images")
        self._turns: dict[str, asyncio.Semaphore] = {}  # by whose jobs they are
        self._waiting: Counter[str] = Counter()
        self._wanted: dict[RunRef, tuple[asyncio.Future[None], Stop]] = {}
        self._held: dict[RunRef, Root] = {}
        self._where: dict[RunRef, str] = {}

    async def in_image(self, spec: RunSpec, request: Request) -> Request:
        """The request of a run, in its image. Raises EngineFault, NotReady where that may change.

        The platform's own runs and commands, and the image ``host``, stay on the machine's
        userland.
        """
        if spec.control or is_host_image(spec.image) or is_executor_image(spec.image):
            return request
        try:
            root = await self._root(spec)
        except RegistryAway as away:
            why = await self._why_offline(spec, away) if self._offline_host else None
            if why is None:
                raise
            where = f"this machine's own programs, as {why}"
            self._where[RunRef(spec.job_id, spec.run)] = where
            return replace(request, where=where)
        except OSError as error:
            raise NotReady(f"its image cannot be kept here: {error}") from error
        self._held[RunRef(spec.job_id, spec.run)] = root
        inside = with_image(request, spec, root)
        return await _with_drivers(inside) if request.gpus and not inside.on_host else inside

    async def _why_offline(self, spec: RunSpec, away: RegistryAway) -> str | None:
        """Why there is no way to the public registry of a run's image; None where there may be.

        A mirror that cannot give an image may be away itself, and be back soon.
        """
        if away.is_public:
            return str(away)
        if not spec.mirror_of:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._images.why_away, spec.mirror_of)

    def with_place(self, event: Event) -> Event:
        """A start with where it runs: a run that is over at once cannot be asked any more."""
        if isinstance(event, Started) and event.where is None and event.ref in self._where:
            return msgspec.structs.replace(event, where=self._where[event.ref])
        return event

    def release(self, ref: RunRef) -> None:
        """Hold a run's image no more: it does so itself, or will never be."""
        self._where.pop(ref, None)
        root = self._held.pop(ref, None)
        if root is not None:
            root.release()

    async def _root(self, spec: RunSpec) -> Root:
        """The run's image. Raises what ``Images.ready`` does, and Withdrawn."""
        ref = RunRef(spec.job_id, spec.run)
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stop = Stop(_person_of(spec))
        self._wanted[ref] = stopped, stop
        fetching = asyncio.ensure_future(self._fetch(spec, stopped, stop))
        try:
            either: list[asyncio.Future[Any]] = [fetching, stopped]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise Withdrawn("the run was stopped while its image was pulled")
            return fetching.result()
        except BaseException:
            fetching.add_done_callback(_forget)
            raise
        finally:
            self.withdraw(ref)
            del self._wanted[ref]

    async def _fetch(self, spec: RunSpec, stopped: asyncio.Future[None], stop: Stop) -> Root:
        loop = asyncio.get_running_loop()
        owner = _person_of(spec)

        def told(progress: float) -> None:
            loop.call_soon_threadsafe(self._waits, spec, stopped, progress)

        def ready() -> Root:
            loop.call_soon_threadsafe(waits.cancel)
            stop.check()
            return self._images.ready(spec.image, spec.pull, told, stop)

        turns = self._turns.setdefault(owner, asyncio.Semaphore(_OF_ONE))
        self._waiting[owner] += 1
        waits = loop.call_later(_TURN_SECONDS, self._say, spec, "Other images are pulled first")
        try:
            async with turns:
                return await loop.run_in_executor(self._threads, ready)
        finally:
            waits.cancel()
            self._waiting[owner] -= 1
            if not self._waiting[owner]:
                del self._waiting[owner], self._turns[owner]

    def withdraw(self, ref: RunRef) -> None:
        """Fetch no more for a run, if anything is."""
        stopped, stop = self._wanted.get(ref, (None, None))
        if stopped is not None and stop is not None:
            stop.set()
            if not stopped.done():
                stopped.set_result(None)

    def close(self) -> None:
        """Fetch no more for anybody. Threads end as soon as they have heard of it."""
        for ref in list(self._wanted):
            self.withdraw(ref)
        self._threads.shutdown(wait=False, cancel_futures=True)

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


def _person_of(spec: RunSpec) -> str:
    return spec.person or spec.neighbours or spec.job_id


async def _with_drivers(request: Request) -> Request:
    """The request of a run that has GPUs, with what their driver needs in an image."""
    try:
        files = await asyncio.to_thread(drivers.driver_files)
    except (OSError, SubprocessError) as error:
        raise NotReady(f"the driver of the GPUs cannot be looked for: {error}") from error
    if not files:
        return request
    return replace(request, drivers=files, env=drivers.with_driver(request.env))


def _forget(fetching: asyncio.Future[Root]) -> None:
    """Nobody waits for it: what it brings is given back, and what it raises is nobody's matter."""
    if not fetching.cancelled() and fetching.exception() is None:
        fetching.result().release()
