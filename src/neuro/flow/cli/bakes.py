"""``neuro-flow bakes``: the project's bakes, with what became of each."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column
from neuro.cli.render.times import ago, local_now, parse_moment
from neuro.flow.cli.bake_names import server_project
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.thin_table import Layout, Row, firm, thin_table

if TYPE_CHECKING:
    from neuro.domain.bakes import Bake

# Wide enough for `bake-<uuid>`, and for the executor's `job-<uuid>`.
COLUMNS = (
    firm("ID", least=41),
    Column("NAME", min=12),
    Column("BATCH", min=20),
    firm("EXECUTOR", least=40),
    firm("STATUS", least=9),
    firm("WHEN", least=10),
    firm("TOOK"),
)
NARROW = (Column("ID/NAME"), Column("BATCH"), firm("STATUS"), firm("WHEN"))
NARROWEST = (Column("ID/BATCH (NAME)"), firm("STATUS"), firm("WHEN"))


def row(bake: Bake, now: datetime) -> Row | None:
    """A bake's row; None for one whose submission was interrupted."""
    from neuro.flow.cli.bake_looks import COLORS, how_long

    attempt = bake.last_attempt
    if attempt is None:
        return None
    return Row(
        (
            bake.id,
            bake.name or "",
            bake.batch,
            attempt.executor_id or "",
            attempt.result.value,
            ago(bake.created_at, now),
            how_long((bake.finished_at or now) - attempt.created_at),
        ),
        COLORS[attempt.result],
    )


def layouts(rows: list[Row]) -> list[Layout]:
    """The ways to list bakes, the widest first."""

    def narrow(row: Row) -> Row:
        bake_id, name, batch, _, status, when, _ = row.cells
        below = f"\n  {name}" if name else ""
        return row._replace(cells=(bake_id + below, batch, status, when))

    def narrowest(row: Row) -> Row:
        bake_id, name, batch, _, status, when, _ = row.cells
        below = f"\n  {batch} ({name})" if name else f"\n  {batch}"
        return row._replace(cells=(bake_id + below, status, when))

    return [
        Layout(COLUMNS, rows),
        Layout(NARROW, [*map(narrow, rows)]),
        Layout(NARROWEST, [*map(narrowest, rows)]),
    ]


@click.command(
    "bakes",
    cls=Command,
    examples="""
        neuro-flow bakes
        neuro-flow bakes --recent-first -t nightly
        neuro-flow bakes --since 1d              # or a date: 2026-11-21
        neuro-flow -q bakes --recent-first | head -n 1
    """,
)
@click.option("-t", "--tag", "tags", multiple=True, help="Only bakes with this tag (repeatable).")
@click.option("--since", metavar="DATE_OR_TIMEDELTA", help="Only bakes created after this.")
@click.option("--until", metavar="DATE_OR_TIMEDELTA", help="Only bakes created before this.")
@click.option("--recent-first/--recent-last", help="Which come first; by default, the oldest.")
@json_option()
@pass_context
def command(
    context: FlowContext,
    tags: tuple[str, ...],
    since: str | None,
    until: str | None,
    recent_first: bool,
    as_json: bool,
) -> None:
    """List the project's bakes: runs of its batches.

    TOOK is how long the last attempt ran, or has run so far.

    In a narrow terminal names and batches stand below ids, and the columns EXECUTOR and TOOK are
    left out: `inspect` shows them.
    """
    from neuro.domain.bakes import BakeFilter

    out, now = context.out, local_now()
    first = parse_moment(since, now) if since else None
    last = parse_moment(until, now) if until else None
    project_id = server_project(context)
    found: list[Bake] = []
    if project_id is not None:
        query = BakeFilter(
            project_id=project_id,
            tags=[*tags],
            since=first,
            until=last,
            reverse=recent_first,
            fetch_last_attempt=True,
        )
        found = context.run(context.client.bakes.list(query))
    if as_json:
        from neuro.flow.cli.bake_json import bake_document

        out.print(document([bake_document(bake, bake.last_attempt) for bake in found]))
        return
    if out.quiet:
        for bake in found:
            out.print(bake.id)
        return
    for line in _table(context, found, now):
        out.print(line)
    if not found and not (tags or since or until):
        out.note("There are no bakes yet: `neuro-flow bake BATCH` runs a batch.")


def _table(context: FlowContext, bakes: list[Bake], now: datetime) -> list[str]:
    rows = []
    for bake in bakes:
        shown = row(bake, now)
        if shown is None:
            text = f"Bake {bake.id} is malformed, skipping"
            context.out.note(context.out.style(text, fg="yellow"))
        else:
            rows.append(shown)
    return thin_table(layouts(rows), context.paint, terminal_width())
