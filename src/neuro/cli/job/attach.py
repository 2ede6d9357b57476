"""``neuro attach``: come back to a job's output, or to its terminal."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.job.follow import (
    follow,
    refuse_without_terminal,
    say_detached,
    wait_for_start,
)
from neuro.cli.job.output import Progress
from neuro.cli.lazy import Command
from neuro.domain.errors import Conflict


@click.command("attach", cls=Command, examples="neuro attach my-job")
@click.argument("job")
@click.option(
    "--port-forward",
    "forwards",
    metavar="LOCAL:REMOTE",
    multiple=True,
    help="Forward a local port into the job while it is attached (repeatable).",
)
@click.option(
    "-t/-T",
    "--tty/--no-tty",
    default=None,
    help="Use its terminal from here, or only see its output; default: as it was started.",
)
@pass_context
def command(context: Context, job: str, forwards: tuple[str, ...], tty: bool | None) -> int:
    """Attach to JOB: see its output, and use its terminal if it was started with -t.

    Ctrl-C detaches; in the terminal of a job that has one, Ctrl-P Ctrl-Q does.
    """
    context.out.leave_stdout_to_job()
    found = context.run(context.client.jobs.find(job))
    if found.status.is_finished:
        raise Conflict(f"Job {job} is over ({found.status.value}): see `neuro logs {job}`.")
    if tty and not found.container.has_keyboard:
        raise Conflict(
            f"Job {job} has no terminal to type in: it was started without `-t`."
            f" `neuro exec {job} bash` opens one inside."
        )
    if tty:
        refuse_without_terminal(context)
    if found.container.has_keyboard and (context.out.is_terminal if tty is None else tty):
        from neuro.cli.job.terminal import attach_terminal

        return attach_terminal(context, found, forwards=forwards)
    if forwards:
        from neuro.cli.job.port_forward import forward_in_background

        try:
            found = wait_for_start(context, found, Progress(context.out))
        except KeyboardInterrupt:
            say_detached(context, found)
            return 0
        forward_in_background(context, found.id, forwards)
    return follow(context, found)
