"""``neuro admin``: users, for administrators."""

from __future__ import annotations

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import INTERRUPTED, NOT_FOUND, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import terminal_width
from neuro.cli.questions import agrees
from neuro.cli.render.job_row import View
from neuro.cli.render.json_text import document, json_option, plain
from neuro.cli.render.table import Column, Line, Table
from neuro.cli.render.times import local_now
from neuro.domain.durations import parse_duration
from neuro.domain.errors import NotFound
from neuro.domain.jobs import ACTIVE, JobFilter
from neuro.domain.names import check_user_name
from neuro.domain.users import check_token_life

_quiet = click.option("-q", "--quiet", is_flag=True, help="Print only what a script needs.")


@click.command("users", cls=Command, examples="neuro admin users")
@_quiet
@json_option()
@pass_context
def users(context: Context, quiet: bool, as_json: bool) -> None:
    """List all users; -q prints names only."""
    out = context.out
    found = context.run(context.client.users.all())
    if as_json:
        out.print(document(found))
        return
    if quiet or out.quiet:
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
        neuro admin add-user -q anna > token
        neuro admin add-user --admin --expires-in 365d boris
    """,
)
@click.argument("name")
@click.option("--admin", "is_admin", is_flag=True, help="Make them an administrator.")
@click.option("--expires-in", metavar="TIMEDELTA", help="How long their first token is valid.")
@_quiet
@json_option()
@pass_context
def add_user(
    context: Context,
    name: str,
    is_admin: bool,
    expires_in: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Add the user NAME, and print the line that logs them in; -q prints only the token."""
    # Before there is a user without a token, whose name nobody could have again.
    life = check_token_life(parse_duration(expires_in)) if expires_in else None
    seconds = life.total_seconds() if life is not None else None
    client, out = context.client, context.out
    user = context.run(client.users.add(check_user_name(name), is_admin=is_admin))
    token = context.run(
        client.users.create_token(user.name, label="first login", expires_in=seconds)
    )
    if as_json:
        out.print(document({**plain(user), "api_url": context.account.url, "token": plain(token)}))
        return
    if quiet or out.quiet:
        out.print(token.token or "")
        return
    out.print(f"Added {'administrator' if user.is_admin else 'user'} {user.name}.")
    out.print("This line logs them in. Whoever has it can act in their name:")
    out.print(f"  neuro config login-with-token {token.token} {context.account.url}")


@click.command(
    "remove-user",
    cls=Command,
    examples="""
        neuro admin remove-user anna
        neuro admin remove-user --yes boris       # asks nothing: for scripts
    """,
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_context
def remove_user(context: Context, name: str, yes: bool) -> int:
    """Remove the user NAME, and stop everything that they started.

    Their tokens are revoked, their jobs are stopped, their bakes are cancelled and their
    schedules are removed. Their files and the records of their jobs stay, for administrators. The
    name cannot be used again.
    """
    client, out = context.client, context.out
    try:
        context.run(client.users.get(name))
    except NotFound:
        raise Failure(
            f"There is no user '{name}': `neuro admin users` lists all.", NOT_FOUND
        ) from None
    if not yes:
        _check_removal(context, name)
    active = context.run(_active_jobs(context, name))
    jobs = f"{active} active {'job' if active == 1 else 'jobs'}"
    if not yes:
        if not out.is_terminal:
            raise click.UsageError(
                f"This would remove {name} and stop {active} {'job' if active == 1 else 'jobs'}."
                " There is no terminal to ask on: add --yes."
            )
        if not agrees(
            out,
            f"{name} has {jobs}, which will be stopped, as will their bakes and schedules.\n"
            f"Their files stay. Nobody can be called {name} again. Remove {name}?",
        ):
            return INTERRUPTED
    context.run(client.users.remove(name))
    out.note(
        f"Removed user {name}; {jobs} stopped. Remove their files with"
        f" `neuro rm -r 'storage://{client.cluster}/{name}/*'`; the empty folder stays."
    )
    return 0


def _check_removal(context: Context, name: str) -> None:
    # Nobody should be asked, or told to add --yes, about somebody who cannot be removed.
    try:
        context.run(context.client.users.check_removal(name))
    except NotFound:
        return  # An older server, which tells only when it is asked to remove them.


async def _active_jobs(context: Context, owner: str) -> int:
    query = JobFilter(owner=[owner], status=sorted(ACTIVE))
    return len([job async for job in context.client.jobs.list(query)])
