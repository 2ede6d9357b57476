"""A build: its job, and being there until that is over."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from neuro.cli.building.sending import sent
from neuro.cli.building.source import build_arguments, source_of
from neuro.cli.building.wanted import Wanted
from neuro.cli.context import Context
from neuro.cli.failures import CutShort, Failure
from neuro.cli.job.exit_code import job_exit_code
from neuro.client.builds import LIFE_SPAN, Build, build_request
from neuro.client.job_request import Where
from neuro.domain.errors import NotFound, PlatformError
from neuro.domain.images import OwnImage
from neuro.domain.jobs import Job, Reason

# What to do about a build that its Dockerfile has not ended.
_ENDED: dict[str, str] = {
    Reason.NOT_FOUND: "Build it again: the steps that were done are kept.",
    Reason.LIFE_SPAN_ENDED: (
        f"A build may take {LIFE_SPAN}. Build it again: the steps that were done are kept."
        " `neuro job bump-life-span JOB 1d` gives a running build one more day."
    ),
}


class Built(NamedTuple):
    """The end of a build. ``size`` in bytes is what a pull takes.

    It and the digest are None where the build failed, or where the registry could not be asked.
    """

    exit_code: int
    job: Job
    digest: str | None = None
    size: int | None = None


def build(context: Context, wanted: Wanted, *, log: int = 1) -> Built:
    """Build and push an image; its log goes to the descriptor ``log``. Ctrl-C kills the job.

    Raises Failure for a Dockerfile that is wrong (with each place), before anything is sent, and
    for an image that exists, unless ``force``; NotPermitted for one that is not theirs to push.
    """
    client = context.client
    source = source_of(context, wanted)
    if not wanted.force:
        _refuse_existing(context, wanted.images)
    # Of one image with several tags it is asked once.
    for image in {it.repository: it for it in wanted.images}.values():
        context.run(client.images.check_push(image))
    preset = wanted.preset or _first_preset(context)
    with sent(context, source, wanted) as (mounted, secret_paths):
        job_build = Build(
            wanted.images,
            source.place,
            source.dockerfile,
            build_arguments(context, wanted),
            wanted.target,
            secret_paths,
            wanted.env,
            wanted.volumes,
            preset,
            wanted.cache,
            wanted.more,
        )
        request = build_request(
            job_build,
            client.images.host,
            Where(client.cluster, client.user),
            mounted=mounted,
            environ=os.environ,
        )
        submitted = context.run(client.jobs.submit(request))
        for notice in submitted.notices:
            context.out.note(notice)
        job = _watch(context, submitted.job, log)
        code = job_exit_code(job)
        if code != 0:
            advise(context, job)
    if code != 0 or not wanted.images:
        return Built(code, job)
    return built_as(context, wanted.images[0], job)


def built_as(context: Context, image: OwnImage, job: Job) -> Built:
    """The end of a build that succeeded, whatever becomes of the question for its image."""
    try:
        found = context.run(context.client.images.look(image))
    except PlatformError as error:
        context.out.warning(
            "The build succeeded, but the digest and the size of its image could not be asked:"
            f" {error} `neuro image digest {image}` asks again."
        )
        return Built(0, job)
    return Built(0, job, found.digest, found.size)


def say_built(context: Context, images: Sequence[OwnImage], built: Built) -> None:
    """The end of what a build says: the reference, and the digest and the size if known."""
    from neuro.cli.render.sizes import gnu_size

    known = f" ({built.digest}, {gnu_size(built.size)})" if built.size is not None else ""
    for image in images:
        context.out.print(f"{image}{known}")


def _refuse_existing(context: Context, images: Sequence[OwnImage]) -> None:
    for image in images:
        try:
            context.run(context.client.images.digest(image))
        except NotFound:
            continue
        raise Failure(
            f"The image {image} exists already: build another tag, or overwrite it with -F"
            " (--force-overwrite)."
        )


def _first_preset(context: Context) -> str | None:
    from neuro.cli.job.run import default_preset

    return default_preset(context, cluster=None)


def _watch(context: Context, job: Job, log: int) -> Job:
    """Print the job's steps and its log until it is over; what it is then. Ctrl-C kills it."""
    from neuro.cli.job.follow import LogReader, end_of, wait_for_start
    from neuro.cli.job.output import Progress
    from neuro.cli.outage import Outage

    out, outage = context.out, Outage(context.out.note)
    reader = LogReader(context, job.id, outage, descriptor=log)
    progress = Progress(out)
    try:
        if not out.quiet:
            out.print(f"Job ID: {job.id}")
            out.flush()
        reader.start()
        wait_for_start(context, job, progress, stirred=reader.stirred, outage=outage)
        out.flush()
        reader.open()
        return end_of(context, job.id, reader, outage)
    except BaseException as error:
        with suppress(BrokenPipeError):
            progress.end()
        _kill(context, job)
        if isinstance(error, BrokenPipeError):
            raise CutShort from None
        raise


def advise(context: Context, job: Job) -> None:
    """Say what to do where the platform ended the build."""
    if job.history.reason in _ENDED:
        context.out.say(_ENDED[job.history.reason])


def _kill(context: Context, job: Job) -> None:
    try:
        context.run(context.client.jobs.kill(job.id))
    except PlatformError as error:
        context.out.warning(f"The build goes on ({error}): `neuro kill {job.id}` ends it.")
    else:
        context.out.note(f"\nThe build was stopped: {job.id}.")
