"""``neuro-flow schedules`` and ``unschedule``: bakes that the server starts by the clock."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column
from neuro.cli.render.times import local_now
from neuro.flow.cli.bake_names import no_such, server_project
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import offer
from neuro.flow.cli.thin_table import NEVER, Layout, Row, firm, thin_table

if TYPE_CHECKING:
    from neuro.domain.bakes import Schedule


def columns(now: datetime) -> list[Column]:
    """The columns; those of times name their zone, which is the one of ``now``."""
    zone = now.strftime("%Z")
    return [
        Column("BATCH"),
        firm("CRON"),
        Column("TIME ZONE"),
        firm(f"NEXT ({zone})"),
        firm(f"LAST ({zone})"),
        Column("LAST BAKE", shrinks=False, spare=1),
    ]


def row(schedule: Schedule, now: datetime) -> Row:
    """A schedule's row."""

    def moment(time: datetime | None) -> str:
        return time.astimezone(now.tzinfo).strftime("%b %d %H:%M") if time else NEVER

    return Row(
        (
            schedule.batch,
            schedule.cron,
            schedule.timezone,
            moment(schedule.next_at),
            moment(schedule.last_at),
            schedule.last_bake_id or NEVER,
        )
    )


def _of_project(context: FlowContext) -> list[Schedule]:
    project_id = server_project(context)
    if project_id is None:
        return []
    return context.run(context.client.bakes.schedules(project_id))


@click.command("schedules", cls=Command, examples="neuro-flow schedules")
@json_option()
@pass_context
def schedules(context: FlowContext, as_json: bool) -> None:
    """List the batches that the clock starts: when each starts next, and when it last did.

    NEXT and LAST are in this machine's time zone.
    """
    out, now = context.out, local_now()
    found = sorted(_of_project(context), key=lambda it: it.batch)
    if as_json:
        out.print(document(found))
        return
    if out.quiet:
        for it in found:
            out.print(it.batch)
        return
    layout = Layout(columns(now), [row(it, now) for it in found])
    for line in thin_table([layout], context.paint, terminal_width()):
        out.print(line)
    for it in found:
        if it.message:
            out.note(context.out.style(f"{it.batch}: {it.message}", fg="yellow"))
    if not found:
        out.note("Nothing is scheduled: `neuro-flow schedule BATCH` schedules a batch.")


@click.command("unschedule", cls=Command, examples="neuro-flow unschedule nightly")
@click.argument("batch", metavar="BATCH", shell_complete=offer("scheduled"))
@pass_context
def unschedule(context: FlowContext, batch: str) -> None:
    """Stop starting BATCH by the clock. Running bakes go on."""
    name = batch.removesuffix(".yml").removesuffix(".yaml")
    found = _of_project(context)
    schedule = next((it for it in found if it.batch == name), None)
    if schedule is None:
        known = [it.batch for it in found]
        raise no_such("schedule of", name, known, "`neuro-flow schedules` lists them all")
    context.run(context.client.bakes.delete_schedule(schedule.id))
    said = f"Batch {name} is not started by the clock any more."
    context.out.print(name if context.out.quiet else said)
