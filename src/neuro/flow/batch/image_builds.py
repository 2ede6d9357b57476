"""The images that tasks of a bake wait for, built when the first of them is to start."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable
from contextlib import aclosing
from itertools import count
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import msgspec

from neuro.client.builds import CONTEXT, Build, build_request
from neuro.client.job_request import Where
from neuro.domain.bakes import BakeImage, BakeImageChange, ImageStatus
from neuro.domain.errors import InvalidInput, NotAuthenticated, NotFound, PlatformError
from neuro.domain.images import OwnImage, own_image
from neuro.domain.jobs import Job, JobRequest, JobStatus, Volume
from neuro.domain.names import MAX_TAGS
from neuro.flow.batch.patience import Patience, Pauses
from neuro.flow.model import ImageDefinition

if TYPE_CHECKING:
    from neuro.client import Client
    from neuro.client.jobs import Submitted

Definition = Callable[[str], ImageDefinition | None]


class ImageBuilds:
    """Each image is built once in an attempt, however many tasks run in it."""

    def __init__(
        self,
        client: Client,
        attempt_id: str,
        images: Iterable[BakeImage],
        definition: Definition,
        *,
        tags: list[str],
        patience: Patience,
        kill: Callable[[str], object],
        log: Callable[[str], None],
    ) -> None:
        """``definition`` finds an image of the bake's files by its reference, once it is known.

        ``tags`` are those of the jobs that build; ``kill`` ends one that nobody waits for.
        """
        self._client = client
        self._attempt_id = attempt_id
        self._definition = definition
        self._tags = tags
        self._patience = patience
        self._kill = kill
        self._log = log
        self._images: dict[str, BakeImage] = {}
        for image in images:
            name = self._own(image.ref)
            if name is not None and image.context_on_storage:
                self._images[str(name)] = image
        self._builds: dict[str, asyncio.Task[str | None]] = {}
        self._waiting: dict[str, int] = {}
        self._jobs: dict[str, str] = {}
        self._given_up: set[str] = set()  # jobs

    def knows(self, reference: str) -> bool:
        """Whether an image is one of the bake's own."""
        return str(self._own(reference)) in self._images

    async def ready(self, reference: str) -> str | None:
        """Return when the image is there; why it will not be, if it could not be built.

        Of any other image it returns at once. To be cancelled where nobody wants it any more.
        Raises NotAuthenticated.
        """
        own = self._own(reference)
        image = self._images.get(str(own))
        if own is None or image is None:
            return None
        name = str(own)
        build = self._builds.get(name)
        if build is None:
            build = self._builds[name] = asyncio.create_task(self._made(own, image))
        self._waiting[name] = self._waiting.get(name, 0) + 1
        try:
            return await asyncio.shield(build)
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name] and not build.done():
                self._give_up(name, build)

    def _give_up(self, name: str, build: asyncio.Task[str | None]) -> None:
        build.cancel()
        del self._builds[name]
        job_id = self._jobs.pop(name, None)
        if job_id is not None:
            self._end(job_id)

    def _end(self, job_id: str) -> None:
        self._given_up.add(job_id)
        self._kill(job_id)

    def _own(self, reference: str) -> OwnImage | None:
        client = self._client
        for text in (reference, f"image:{reference}"):
            try:
                own = own_image(text, cluster=client.cluster, user=client.user)
            except InvalidInput:
                return None
            if own is not None and (text == reference or str(own) in self._images):
                return own
        return None

    async def _made(self, own: OwnImage, image: BakeImage) -> str | None:
        definition = self._definition(image.ref)
        if definition is None:
            self._log(
                f"Image {image.ref} is defined where outputs decide, and is not known yet: its"
                " tasks start with the image that is there."
            )
            return None
        try:
            may_be_there = image.status is not ImageStatus.BUILDING
            if may_be_there and not definition.force_rebuild and await self._is_there(own):
                if image.status is not ImageStatus.BUILT:
                    await self._change(image, ImageStatus.CACHED)
                return None
            return await self._build(own, image, definition)
        except NotAuthenticated:
            raise
        except (PlatformError, ValueError) as error:
            return f"Image {image.ref} cannot be built: {error}"

    async def _is_there(self, own: OwnImage) -> bool:
        try:
            await self._patience(lambda: self._client.images.digest(own))
        except NotFound:
            return False
        return True

    async def _build(
        self, own: OwnImage, image: BakeImage, definition: ImageDefinition
    ) -> str | None:
        request = self._request(own, image, definition)
        # The same job, if an executor that was lost had submitted it; and another one than those
        # that were given up before this task came.
        for number in count():
            job = await self._submitted(request, f"{self._attempt_id}/image/{image.id}/{number}")
            if job.id not in self._given_up and job.status is not JobStatus.CANCELLED:
                break
        self._jobs[str(own)] = job.id
        self._log(f"Image {image.ref} is building ({job.id})")
        await self._change(image, ImageStatus.BUILDING, job.id)
        job = await self._over(job.id)
        self._jobs.pop(str(own), None)
        if job.status is JobStatus.SUCCEEDED:
            await self._change(image, ImageStatus.BUILT)
            self._log(f"Image {image.ref} is built")
            return None
        await self._change(image, ImageStatus.BUILD_FAILED)
        said = f"Image {image.ref} could not be built: `neuro logs {job.id}` says why."
        self._log(said)
        return said

    async def _submitted(self, request: JobRequest, key: str) -> Job:
        submit = self._client.jobs.submit
        submission = asyncio.ensure_future(self._patience(lambda: submit(request, key)))
        try:
            return (await asyncio.shield(submission)).job
        except asyncio.CancelledError:
            submission.add_done_callback(self._unwanted)
            raise

    def _unwanted(self, submission: asyncio.Future[Submitted]) -> None:
        if not submission.cancelled() and submission.exception() is None:
            self._end(submission.result().job.id)

    def _request(self, own: OwnImage, image: BakeImage, definition: ImageDefinition) -> JobRequest:
        client = self._client
        source = client.storage.uri(image.context_on_storage or "")
        build = Build(
            images=(own,),
            context=CONTEXT,
            dockerfile=str(PurePosixPath(image.dockerfile_rel or "Dockerfile")),
            build_args=definition.build_args,
            env=tuple(f"{name}={value}" for name, value in definition.env.items()),
            volumes=definition.volumes,
            preset=definition.build_preset,
            more=tuple(shlex.split(definition.extra_kaniko_args or "")),
        )
        mounted = [Volume(src_storage_uri=str(source), dst_path=CONTEXT, read_only=True)]
        request = build_request(
            build,
            client.images.host,
            Where(client.cluster, client.user),
            mounted=mounted,
            environ={},
        )
        return msgspec.structs.replace(request, tags=self._tags[:MAX_TAGS])

    async def _over(self, job_id: str) -> Job:
        """The job once it is over: the end of its log is its end."""
        jobs, pauses = self._client.jobs, Pauses()

        async def read() -> Job:
            async with aclosing(jobs.logs(job_id)) as chunks:
                async for _ in chunks:
                    pass
            return await jobs.get(job_id)

        while not (job := await self._patience(read)).status.is_finished:
            await pauses.wait()
        return job

    async def _change(
        self, image: BakeImage, status: ImageStatus, builder: str | None = None
    ) -> None:
        change = BakeImageChange(status=status, builder_job_id=builder)
        await self._patience(lambda: self._client.bakes.change_image(image.id, change))
