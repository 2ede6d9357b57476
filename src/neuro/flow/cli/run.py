"""``neuro-flow run``: run a job of the live workflow, or connect to it where it runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Delegated, Failed
from neuro.flow.cli.names import check_runnable, offer
from neuro.flow.cli.params import check_params, job_options, made_up_suffix
from neuro.flow.command_line import run_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuro.domain.jobs import Job


@click.command(
    "run",
    cls=Command,
    examples="""
        neuro-flow run train
        neuro-flow run multitrain --suffix a -p lr 0.1
        neuro-flow run --dry-run train                  # print the `neuro run` line
    """,
)
@click.argument("job_id", metavar="JOB", shell_complete=offer("jobs"))
@click.argument("args", nargs=-1)
@job_options
@click.option("--dry-run", is_flag=True, help="Print the command line; run nothing.")
@pass_context
def command(
    context: FlowContext,
    job_id: str,
    args: tuple[str, ...],
    suffix: str | None,
    param: tuple[tuple[str, str], ...],
    dry_run: bool,
) -> int:
    """Run JOB, and see its output.

    If it runs already, connect to it. ARGS are added to the command of a multi-job; prefer
    parameters.
    """
    workflow = context.workflow
    if args:
        context.out.note(context.out.style("args are deprecated, use --param instead", fg="yellow"))
    check_runnable(context, job_id, suffix)
    multi = workflow.is_multi(job_id)
    if args and not multi:
        raise click.UsageError("Additional job arguments are supported by multi-jobs only")
    params = check_params(workflow, job_id, param)
    if not dry_run and (suffix is not None or not multi):
        found = context.run(context.live.find(job_id, suffix))
        if found is not None and not found.status.is_finished:
            if args:
                raise Failed("Multi job with such suffix is already running.")
            return _connect(context, job_id, suffix, params, found)
    if multi and suffix is None:
        suffix = made_up_suffix()
    from neuro.flow.cli.effects import DryRun, RealRun

    effects = DryRun(context) if dry_run else RealRun(context)
    job = workflow.resolve(
        job_id, params=params, suffix=suffix, args=args, effects=effects, report=context.remarks
    )
    context.warn()
    words = run_words(job, args)
    if dry_run:
        context.out.print(shlex.join(["neuro", "run", *words]))
        return 0
    from neuro.flow.cli.platform import RUN, neuro

    context.run(context.live.register())
    try:
        code = neuro(context, RUN, *words, name="run")
    except Delegated as error:
        from neuro.flow.cli.volumes import missing_volume

        error.hint = missing_volume(context, str(error))
        raise
    if job.detach and code == 0:
        name = job_id if suffix is None else f"{job_id} {suffix}"
        context.out.note(
            f"Job {name} goes on by itself. `neuro-flow logs {name}` shows its output, and how to"
            f" get in where the job says so; `neuro-flow kill {name}` stops it."
        )
    return code


def _connect(
    context: FlowContext,
    job_id: str,
    suffix: str | None,
    params: Mapping[str, str],
    found: Job,
) -> int:
    from neuro.domain.jobs import JobStatus
    from neuro.flow.cli.effects import NoUpload
    from neuro.flow.cli.platform import ATTACH, BROWSE, neuro
    from neuro.flow.live import label

    name = label(job_id, suffix)
    if found.status is not JobStatus.RUNNING:
        raise Failed(f"Job {name} is {found.status.value}, try again later", 2)
    job = context.workflow.resolve(job_id, params=params, suffix=suffix, effects=NoUpload(context))
    if not job.detach:
        context.out.leave_stdout_to_job()
    if not context.out.quiet:
        context.out.print(f"Job {name} is running, connecting...")
        context.out.flush()
    if job.browse:
        neuro(context, BROWSE, found.id, name="job browse")
    if job.detach:
        return 0
    forwards = [f"--port-forward={pair}" for pair in job.port_forward]
    return neuro(context, ATTACH, *forwards, found.id, name="attach")
