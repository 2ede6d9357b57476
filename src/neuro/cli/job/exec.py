"""``neuro exec``: run a command inside a running job."""

from __future__ import annotations

import asyncio
import signal

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import INTERRUPTED, MALFUNCTION, Failure
from neuro.cli.job.follow import refuse_without_terminal
from neuro.cli.job.hints import shell_hint
from neuro.cli.job.log_copy import write_all
from neuro.cli.job.sending import send_input
from neuro.cli.job.standard_input import has_input
from neuro.cli.lazy import Command
from neuro.client.job_request import join_command
from neuro.client.sessions import JobSession
from neuro.domain.errors import NotFound


async def _show(session: JobSession) -> None:
    while (piece := await session.read()) is not None:
        channel, data = piece
        write_all(1 if channel == JobSession.STDOUT else 2, data)


async def _exec(context: Context, job_id: str, command: str, *, tty: bool) -> int:
    piped = not tty and has_input()
    async with (
        context.aio_client() as client,
        client.jobs.exec(job_id, command, tty=tty, stdin=tty or piped) as session,
    ):
        if tty:
            from neuro.cli.job.terminal import converse_exec

            await converse_exec(session)
        else:
            sending = asyncio.ensure_future(send_input(session)) if piped else None
            await _show(session)
            if sending is not None:
                sending.cancel()
        if session.exit_code is None:
            raise Failure("The connection ended without an exit code.", MALFUNCTION)
        return session.exit_code


@click.command(
    "exec",
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    examples="""
        neuro exec my-job bash                  # a shell inside the job
        neuro exec -T my-job -- ls -l /data     # no terminal: output as it is
        tar c . | neuro exec my-job -- tar x -C /data
    """,
)
@click.argument("job")
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED, required=True)
@click.option(
    "-t/-T",
    "--tty/--no-tty",
    default=None,
    help="Give CMD a terminal; default: if there is one here.",
)
@pass_context
def command(context: Context, job: str, cmd: tuple[str, ...], tty: bool | None) -> int:
    """Run CMD inside JOB and exit with its exit code.

    In a terminal all keys go to CMD, Ctrl-C included. Piped input is passed on, up to its end.
    """
    if tty:
        refuse_without_terminal(context)
    line = join_command(cmd)
    if line is None:
        raise click.UsageError("Missing argument 'CMD...'.")
    if hint := shell_hint(line, f"neuro exec {job}"):
        context.out.note(hint)
    job_id = context.run(context.client.jobs.resolve(job))
    terminal = context.out.is_terminal if tty is None else tty
    try:
        return asyncio.run(_exec(context, job_id, line, tty=terminal))
    except NotFound as error:
        raise NotFound(f"{error} `neuro status {job}` says more.") from None
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return INTERRUPTED
