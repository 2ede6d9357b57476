"""``neuro-flow schedule``: have the server start a batch by the clock."""

from __future__ import annotations

from pathlib import Path

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.batch_params import batch_argument, check_presets, param_options, plan_of
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed


@click.command(
    "schedule",
    cls=Command,
    examples="""
        neuro-flow schedule nightly
        neuro-flow schedule nightly -p lr 0.1
    """,
)
@batch_argument
@param_options
@click.option("-t", "--tag", "tags", multiple=True, help="A tag of the bakes (repeatable).")
@pass_context
def command(
    context: FlowContext,
    batch: str,
    param: tuple[tuple[str, str], ...],
    file: Path | None,
    tags: tuple[str, ...],
) -> None:
    """Have the server start BATCH at the times that `schedule:` in its file gives.

    The files are sent as they are now: after a change, schedule it again.
    """
    plan = plan_of(context, batch, param, file)
    check_presets(context, plan)
    if plan.schedule is None:
        raise Failed(
            f"Batch {plan.workflow.batch} has no schedule: write `schedule:` with `cron:` into"
            " its file, such as `cron: 0 3 * * *` for three o'clock at night."
        )
    from neuro.domain.bakes import ScheduledFile, ScheduleRequest
    from neuro.flow.batch.submit import meta_of

    when, workflow = plan.schedule, plan.workflow
    project = context.run(context.client.flows.get_or_create_project(workflow.project_id))
    request = ScheduleRequest(
        project_id=project.id,
        batch=workflow.batch,
        cron=when.cron,
        timezone=when.timezone,
        overlap=when.overlap,
        catch_up=when.catch_up,
        workspace=str(context.workspace.root),
        files=[
            ScheduledFile(role=it.role, filename=it.filename, content=it.text) for it in plan.files
        ],
        graphs=plan.graphs,
        params=dict(plan.params),
        tags=[*tags],
        meta=meta_of(plan),
    )
    schedule = context.run(context.client.bakes.put_schedule(request))
    if context.out.quiet:
        context.out.print(workflow.batch)
        return
    from neuro.cli.render.times import local_now
    from neuro.flow.cli.bake_looks import clock

    now = local_now()
    # In this machine's zone, as all times that are shown.
    first = f"; next {clock(schedule.next_at, now)} {now:%Z}" if schedule.next_at else ""
    context.out.print(
        f"Batch {workflow.batch} is started by the clock: {when.cron} ({when.timezone}){first}."
    )
