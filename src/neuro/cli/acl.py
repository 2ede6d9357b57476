"""``neuro acl`` and ``neuro share``: who may do what, by whom it was given, and roles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import Output, terminal_width
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column, Line, Sheet
from neuro.cli.render.times import iso_seconds, local_now
from neuro.cli.render.uris import short_uri
from neuro.domain.durations import parse_duration
from neuro.domain.errors import InvalidInput
from neuro.domain.names import is_role
from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import (
    CLUSTER_SCHEMES,
    GLOBAL_SCHEMES,
    complete_uri,
    parse_uri,
    typed_text,
)
from neuro.domain.users import Explanation, PermissionEntry

_COLOURS = {Action.READ: "blue", Action.WRITE: "green", Action.MANAGE: "bright_yellow"}
_action = click.argument("action", type=click.Choice([action.value for action in Action]))


@click.command(
    "grant",
    cls=Command,
    examples="""
        neuro share storage:cifar-10 alice manage
        neuro share job:my-job alice read          # every run of that name
        neuro share --expires 7d job: alice write  # all your jobs, for a week
        neuro share storage:data public read       # everybody with a token
        neuro acl grant role://anna/roles/team alice read   # alice is in it
    """,
)
@click.argument("uri")
@click.argument("user")
@_action
@click.option("--expires", metavar="TIMEDELTA", help="After how long it ends, like 7d or 12h.")
@json_option()
@pass_context
def grant(
    context: Context, uri: str, user: str, action: str, expires: str | None, as_json: bool
) -> None:
    """Let USER do ACTION on URI and on all below it.

    USER is the name of a user or a role, or `public` for everybody. ACTION is
    read, write (which includes read) or manage (which includes both, and
    sharing it). You need manage on URI yourself.
    """
    seconds = parse_duration(expires).total_seconds() if expires else None
    if seconds == 0:
        raise InvalidInput("--expires is 0: a share ends after some time, or never without it.")
    full = _complete(context, uri)
    _check_tag(uri, full, user, action)
    wanted = Action(action)
    given = context.run(context.client.permissions.share(full, user, wanted, expires_in=seconds))
    if as_json:
        context.out.print(document(given))
        return
    until = f" until {_time(given.expires_at, local_now())}" if given.expires_at else ""
    if given.action is not wanted:
        context.out.warning(
            f"'{user}' has '{given.action}' on {full} already{until}, which is more. To narrow it,"
            f" take that back first: neuro acl explain {full} {user}"
        )
        return
    context.out.note(f"'{user}' may {action} {full}{until}.")


@click.command(
    "revoke",
    cls=Command,
    examples="""
        neuro acl revoke storage:cifar-10 alice
        neuro acl revoke role://anna/roles/team alice   # is in it no more
    """,
)
@click.argument("uri")
@click.argument("user")
@pass_context
def revoke(context: Context, uri: str, user: str) -> None:
    """Take back what USER was granted on exactly URI; it holds at once.

    Their next request is refused, and what they follow ends. What they have
    by a folder above, by a role or with everybody stays: `neuro acl explain`
    shows it.
    """
    full = _complete(context, uri)
    context.run(context.client.permissions.revoke(full, user))
    context.out.note(f"Took back what '{user}' was granted on {full}.")


@click.command(
    "ls",
    cls=Command,
    examples="""
        neuro acl ls
        neuro acl ls --full-uri storage:
        neuro acl ls --shared                    # what others may do with yours
        neuro acl ls -u anna/roles/team          # what a role may do
        neuro acl ls --shared --json | jq -r '.[].user'
    """,
)
@click.argument("uri", required=False)
@click.option("--shared", is_flag=True, help="What others were granted of yours, and by you.")
@click.option("--full-uri", is_flag=True, help="Print whole URIs.")
@click.option("-u", "--user", metavar="USER", help="Of another user, or of a role.")
@json_option()
@pass_context
def ls(
    context: Context,
    uri: str | None,
    shared: bool,
    full_uri: bool,
    user: str | None,
    as_json: bool,
) -> None:
    """List what you may do, on what is below URI if one is given.

    URI may be a scheme alone, as in `storage:`. -q prints URIs only.
    """
    permissions, out = context.client.permissions, context.out
    name, wanted = user or context.client.user, _filter(context, uri)
    call = permissions.shared if shared else permissions.of
    found = sorted(context.run(call(name, uri=wanted)), key=lambda it: (it.uri, it.user or ""))
    if as_json:
        out.print(document(found))
        return

    def shown(text: str) -> str:
        return text if full_uri else short_uri(text, context.client.cluster, context.client.user)

    if out.quiet:
        for text in dict.fromkeys(shown(entry.uri) for entry in found):
            out.print(text)
        return
    for line in _table(found, [shown(entry.uri) for entry in found], out):
        out.print(line)


def _table(found: Sequence[PermissionEntry], uris: Sequence[str], out: Output) -> list[str]:
    """A column for what is said of any of them."""
    now = local_now()
    columns = [Column("URI"), Column("ACTION", shrinks=False)]
    rows = [
        [(Line(uri),), (Line(entry.action, _COLOURS[entry.action]),)]
        for uri, entry in zip(uris, found, strict=True)
    ]
    for title, texts in (
        ("USER", [entry.user or "" for entry in found]),
        ("THROUGH", ["/".join(entry.via[:1]) for entry in found]),
        ("EXPIRES", [_time(entry.expires_at, now) for entry in found]),
    ):
        if any(texts):
            columns.append(Column(title, shrinks=title == "THROUGH"))
            for row, text in zip(rows, texts, strict=True):
                row.append((Line(text),))
    sheet = Sheet(columns, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))
    return [sheet.header(), *sheet.lines()]


@click.command(
    "explain",
    cls=Command,
    examples="""
        neuro acl explain storage:/anna/data
        neuro acl explain storage:data alice     # why alice may what on yours
    """,
)
@click.argument("uri")
@click.argument("user", required=False)
@json_option()
@pass_context
def explain(context: Context, uri: str, user: str | None, as_json: bool) -> None:
    """Show what you, or USER, may do on URI, and every grant that says so.

    To ask about others you need manage on URI.
    """
    name = user or context.client.user
    told = context.run(context.client.permissions.explain(_complete(context, uri), name))
    if as_json:
        context.out.print(document(told))
        return
    for line in _explained(told, local_now()):
        context.out.print(line)


def _explained(told: Explanation, now: datetime) -> list[str]:
    if told.action is None:
        return [f"'{told.user}' may do nothing on {told.uri}."]
    lines = [f"'{told.user}' may {told.action} {told.uri}:"]
    for entry in told.grants:
        subject = entry.via[-1] if entry.via else told.user
        said = f"{entry.action} on {entry.uri}, granted to {_called(subject)}"
        said += f" by '{entry.granted_by}'" if entry.granted_by else " from the start"
        if entry.expires_at:
            said += f", until {_time(entry.expires_at, now)}"
        lines.append(f"  {said}")
        names = (told.user, *entry.via)
        lines += [
            f"    '{one}' is in {_called(role)}" for one, role in pairwise(names) if role != PUBLIC
        ]
    return lines


def _called(subject: str) -> str:
    if subject == PUBLIC:
        return "everybody"
    return f"the role '{subject}'" if is_role(subject) else f"'{subject}'"


@click.command(
    "add-role",
    cls=Command,
    examples="""
        neuro acl add-role anna/roles/team
        neuro acl grant storage:data anna/roles/team write
        neuro acl grant role://anna/roles/team alice read
    """,
)
@click.argument("role_name")
@pass_context
def add_role(context: Context, role_name: str) -> None:
    """Make a role: a name for people who may do the same.

    ROLE_NAME begins with your own name and a slash. Whoever is granted
    role://ROLE_NAME is in it.
    """
    context.run(context.client.permissions.add_role(role_name))
    context.out.note(
        f"Made the role {role_name}. Let people in with"
        f" `neuro acl grant role://{role_name} USER read`."
    )


@click.command("remove-role", cls=Command, examples="neuro acl remove-role anna/roles/team")
@click.argument("role_name")
@pass_context
def remove_role(context: Context, role_name: str) -> None:
    """Remove a role. Who was in it loses what it had, at once."""
    context.run(context.client.permissions.remove_role(role_name))
    context.out.note(f"Removed the role {role_name}.")


@click.command(
    "list-roles",
    cls=Command,
    examples="""
        neuro acl list-roles
        neuro acl list-roles -u alice            # for administrators
    """,
)
@click.option("-u", "--user", metavar="USER", help="Of another user, or of a role.")
@json_option()
@pass_context
def list_roles(context: Context, user: str | None, as_json: bool) -> None:
    """List your roles, and those that you are in."""
    found = context.run(context.client.permissions.roles(user or context.client.user))
    if as_json:
        context.out.print(document(found))
        return
    for role in found:
        context.out.print(role)


def _complete(context: Context, text: str) -> str:
    """A whole URI of what was typed."""
    scheme = text.partition(":")[0].lower()
    if scheme not in CLUSTER_SCHEMES:
        return typed_text(parse_uri(text))
    client = context.client
    return typed_text(complete_uri(text, scheme, cluster=client.cluster, user=client.user))


def _check_tag(uri: str, full: str, user: str, action: str) -> None:
    """Raises InvalidInput for one tag of an image: what is granted on it would open nothing."""
    if full.startswith("image:") and ":" in full.rpartition("/")[2]:
        raise InvalidInput(
            f"'{uri}' is one tag, and an image is shared with all of its tags: neuro share"
            f" {uri.rpartition(':')[0]} {user} {action}"
        )


def _filter(context: Context, text: str | None) -> str:
    if not text:
        return ""
    scheme, colon, rest = text.partition(":")
    is_scheme = colon and not rest and scheme.lower() in CLUSTER_SCHEMES + GLOBAL_SCHEMES
    return text.lower() if is_scheme else _complete(context, text)


def _time(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else iso_seconds(moment, now)
