"""``neuro ps``, ``neuro job ls``: list jobs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import Output, terminal_width
from neuro.cli.render.columns import Shown, parse_columns
from neuro.cli.render.job_row import (
    PS_ALL_OWNERS,
    PS_ALL_OWNERS_NARROWER,
    PS_COLUMNS,
    PS_DEFAULT,
    PS_NARROWER,
    View,
    job_row,
)
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Table, first_that_fits
from neuro.cli.render.times import local_now, parse_moment
from neuro.client.jobs import PAGE
from neuro.domain.jobs import ACTIVE, Job, JobFilter, JobStatus
from neuro.domain.names import check_job_name


def job_filter(
    *,
    now: datetime,
    cluster: str,
    statuses: Sequence[str] = (),
    everything: bool = False,
    name: str | None = None,
    owners: Sequence[str] = (),
    tags: Sequence[str] = (),
    since: str | None = None,
    until: str | None = None,
    recent_first: bool = False,
    user: str = "",
) -> JobFilter:
    """The list's query of the options. Without statuses: the active ones. ``ME`` is the caller."""
    wanted = [JobStatus(status) for status in statuses]
    if not wanted and not everything:
        wanted = [status for status in JobStatus if status in ACTIVE]
    return JobFilter(
        status=wanted,
        name=check_job_name(name) if name else None,
        owner=[user if owner == "ME" else owner for owner in owners],
        tag=list(tags),
        since=parse_moment(since, now) if since else None,
        until=parse_moment(until, now) if until else None,
        cluster_name=cluster,
        reverse=recent_first,
    )


class _Chosen(NamedTuple):
    """The columns that fit, and their table."""

    columns: Sequence[Shown]
    table: Table

    @property
    def fits(self) -> bool:
        return self.table.fits


class Printer:
    """Prints jobs as they come: a first page decides the widths, the others follow."""

    def __init__(
        self,
        out: Output,
        columns: Sequence[Shown],
        view: View,
        width: int | None,
        narrower: Sequence[Sequence[Shown]] = (),
    ):
        """``narrower`` are the columns for terminals that the others do not fit into, in order."""
        self._out = out
        self._choices = [columns, *narrower]
        self._view = view
        self._width = width
        self._chosen: _Chosen | None = None
        self._page: list[Job] = []

    def _measured(self, columns: Sequence[Shown]) -> _Chosen:
        looks = [column.look for column in columns]
        chosen = _Chosen(columns, Table(looks, width=self._width, style=self._style))
        chosen.table.measure([job_row(job, columns, self._view) for job in self._page])
        return chosen

    def _style(self, text: str, fg: str | None) -> str:
        return self._out.style(text, fg=fg) if fg else text

    def add(self, job: Job) -> None:
        self._page.append(job)
        if len(self._page) == PAGE:
            self.flush()

    def flush(self) -> None:
        """Print what has come; the header before the first."""
        is_first = self._chosen is None
        self._chosen = chosen = self._chosen or first_that_fits(map(self._measured, self._choices))
        rows = [job_row(job, chosen.columns, self._view) for job in self._page]
        self._page.clear()
        chosen.table.measure(rows)
        if is_first:
            self._out.print(self._out.style(chosen.table.header(), bold=True))
        if rows:
            self._out.print("\n".join(chosen.table.lines(rows)))


async def collect(context: Context, query: JobFilter, *, description: str | None) -> list[Job]:
    """The jobs that match."""
    async with aclosing(context.client.jobs.list(query, context.out.warning)) as jobs:
        return [job async for job in jobs if description in (None, job.description)]


async def show(
    context: Context, query: JobFilter, *, printer: Printer | None, description: str | None
) -> None:
    """Print the jobs that match; without a printer their ids."""
    remarks: list[str] = []
    async with aclosing(context.client.jobs.list(query, remarks.append)) as jobs:
        async for job in jobs:
            if description is not None and job.description != description:
                continue
            if printer:
                printer.add(job)
            else:
                context.out.print(job.id)
    if printer:
        printer.flush()
    for remark in remarks:
        context.out.warning(remark)


@click.command(
    "ls",
    cls=Command,
    examples="""
        neuro ps                                # what is pending or running
        neuro ps --all --recent-first           # everything, newest first
        neuro ps -s failed --since 1d           # what failed since yesterday
        neuro ps -t experiment:7 -o bob         # by tag and owner
        neuro ps --all-owners                   # everybody's, with reasons
        neuro ps --format "id name status preset command"
        neuro -q ps | xargs -r neuro kill       # bare ids
        neuro ps --json | jq -r '.[].container.image'
    """,
)
@click.option(
    "-s",
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in JobStatus]),
    help="Only jobs in this status (repeatable).",
)
@click.option("-o", "--owner", "owners", multiple=True, help="Only this owner's; ME is you.")
@click.option(
    "--all-owners",
    is_flag=True,
    help="The jobs of all owners that you may see, with reasons; administrators see all.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also jobs that are over.")
@click.option("-n", "--name", metavar="NAME", help="Only jobs with this name.")
@click.option("-t", "--tag", "tags", multiple=True, help="Only jobs with this tag (repeatable).")
@click.option("-d", "--description", help="Only jobs with this description.")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only jobs created after this.")
@click.option("--until", metavar="DATE_OR_TIMEDELTA", help="Only jobs created before this.")
@click.option("--cluster", metavar="CLUSTER", help="In another cluster.")
@click.option("--recent-first/--recent-last", help="Newest first or last.", show_default=True)
@click.option("--format", "columns", metavar="COLUMNS", help="See `neuro help ps-format`.")
@click.option("--full-uri", is_flag=True, help="Image URIs in full.")
@click.option("-w", "--wide", is_flag=True, help="Do not fit the table into the terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only.")
@json_option("Print the jobs as one JSON document, with the fields of the API.")
@click.option("--distinct", is_flag=True, hidden=True, expose_value=False)
@pass_context
def command(
    context: Context,
    statuses: tuple[str, ...],
    owners: tuple[str, ...],
    all_owners: bool,
    everything: bool,
    name: str | None,
    tags: tuple[str, ...],
    description: str | None,
    since: str | None,
    until: str | None,
    cluster: str | None,
    recent_first: bool,
    columns: str | None,
    full_uri: bool,
    wide: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """List pending and running jobs, oldest first.

    A narrow terminal gets fewer columns; `--wide`, `--format` and `--json` keep them all.
    """
    if all_owners and owners:
        raise click.UsageError("Give --owner or --all-owners, not both.")
    out, account = context.out, context.account
    asked = columns or (None if all_owners else context.user_config.ps_format)
    usual = (PS_ALL_OWNERS, *PS_ALL_OWNERS_NARROWER) if all_owners else (PS_DEFAULT, *PS_NARROWER)
    formats = [asked] if asked else usual
    shown, *narrower = [parse_columns(text, PS_COLUMNS) for text in formats]
    query = job_filter(
        now=local_now(),
        cluster=cluster or account.cluster,
        statuses=statuses,
        everything=everything,
        name=name,
        owners=owners,
        tags=tags,
        since=since,
        until=until,
        recent_first=recent_first,
        user=account.user,
    )
    if as_json:
        found = context.run(collect(context, query, description=description))
        out.print(document(found))
        return
    printer = None
    if not (quiet or out.quiet):
        view = View(account.user, local_now(), out.iso_dates)
        printer = Printer(out, shown, view, None if wide else terminal_width(), narrower)
    context.run(show(context, query, printer=printer, description=description))
