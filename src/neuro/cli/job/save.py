"""``neuro save``: a running job becomes an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import Output
from neuro.domain.images import OwnImage


@click.command(
    "save",
    cls=Command,
    examples="""
        neuro save my-job image:with-my-changes:v1
        neuro run image:with-my-changes:v1 python train.py
        neuro save job-fb835ab0-5285-4360-8ee1-880a8ebf824c image:/bob/trainer:v2
    """,
)
@click.argument("job")
@click.argument("image")
@pass_context
def command(context: Context, job: str, image: str) -> None:
    """Save the files of the running JOB as IMAGE, for later jobs. Prints the image.

    Volumes, secret files and the environment of the job are not part of it. In the sandbox the job
    goes on, and what it writes meanwhile may be in the image or not; Docker stops it for that time.
    """
    target = context.client.images.image(image)
    context.run(_save(context, job, target))
    context.out.print(str(target))


async def _save(context: Context, job: str, image: OwnImage) -> None:
    jobs, out = context.client.jobs, context.out
    job_id = await jobs.resolve(job)
    out.note(f"Saving job '{job}' to image '{image}'...")
    with _shown(out) as moved:
        async for step in jobs.save(job_id, image):
            if step.status == "CommitStarted":
                out.note("Creating image from the job container...")
            elif step.status == "CommitFinished":
                out.note("Image created")
                out.note("Pushing image...")
            elif step.progress_detail is not None:
                moved(step.progress_detail.current, step.progress_detail.total)
            elif step.status and not step.id:
                out.note(step.status)


@contextmanager
def _shown(out: Output) -> Iterator[Callable[[int, int], None]]:
    """A bar of how far the push is, on a terminal."""
    if not out.is_terminal or out.quiet:
        yield lambda current, total: None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

    from neuro.cli.render.bars import bars

    with bars(out, BarColumn(), TaskProgressColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=None)
        yield lambda current, total: bar.update(task, completed=current, total=total)
