"""``neuro admin``: users, for administrators."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.render.job_row import View
from neuro.cli.render.table import Column, Line, Table
from neuro.cli.render.times import local_now
from neuro.domain.durations import parse_duration
from neuro.domain.names import check_user_name


@click.command("users", cls=Command, examples="neuro admin users")
@pass_context
def users(context: Context) -> None:
    """List all users; -q prints names only."""
    out = context.out
    found = context.run(context.client.users.all())
    if out.quiet:
        for user in found:
            out.print(user.name)
        return
    view = View(context.client.user, local_now(), out.iso_dates)
    rows = [
        (
            (Line(user.name),),
            (Line("admin" if user.is_admin else "user"),),
            (Line(view.time(user.created_at)),),
        )
        for user in found
    ]
    table = Table([Column("NAME"), Column("ROLE"), Column("CREATED")], width=terminal_width())
    table.measure(rows)
    for line in (table.header(), *table.lines(rows)):
        out.print(line)


@click.command(
    "add-user",
    cls=Command,
    examples="""
        neuro admin add-user anna
        neuro admin add-user --admin --expires-in 365d boris
    """,
)
@click.argument("name")
@click.option("--admin", "is_admin", is_flag=True, help="Make them an administrator.")
@click.option("--expires-in", metavar="TIMEDELTA", help="How long their first token is good.")
@pass_context
def add_user(context: Context, name: str, is_admin: bool, expires_in: str | None) -> None:
    """Add the user NAME, and print the line that logs them in; -q prints the token only."""
    seconds = parse_duration(expires_in).total_seconds() if expires_in else None
    client, out = context.client, context.out
    user = context.run(client.users.add(check_user_name(name), is_admin=is_admin))
    token = context.run(
        client.users.create_token(user.name, label="first login", expires_in=seconds)
    )
    if out.quiet:
        out.print(token.token or "")
        return
    out.print(f"Added {'administrator' if user.is_admin else 'user'} {user.name}.")
    out.print("They log in with this line; who has it is them:")
    out.print(f"  neuro config login-with-token {token.token} {context.account.url}")


@click.command("remove-user", cls=Command, examples="neuro admin remove-user anna")
@click.argument("name")
@pass_context
def remove_user(context: Context, name: str) -> None:
    """Remove the user NAME: their tokens are useless from now on."""
    context.run(context.client.users.remove(name))
    context.out.note(f"Removed user {name}.")
