"""``neuro config token``: tokens for scripts and other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import INTERRUPTED, NOT_FOUND, Failure
from neuro.cli.lazy import Command
from neuro.cli.output import Output, terminal_width
from neuro.cli.questions import agrees
from neuro.cli.render.job_row import View
from neuro.cli.render.json_text import document, json_option, plain
from neuro.cli.render.table import Column, Line, Sheet, first_that_fits
from neuro.cli.render.times import iso_seconds, local_now
from neuro.client.accounts import token_id_in
from neuro.domain.durations import parse_duration
from neuro.domain.errors import NotFound, new_login
from neuro.domain.users import Token

F = TypeVar("F", bound=Callable[..., Any])

QUESTION = "This is the token that you are logged in with here. Revoke it?"


def _user_option(text: str) -> Callable[[F], F]:
    return click.option("--user", metavar="USER", help=f"{text} (for administrators).")


@click.command(
    "create",
    cls=Command,
    examples="""
        neuro config token create --label ci --expires-in 90d
        TOKEN=$(neuro -q config token create --label backup)
    """,
)
@click.option("--label", default="", help="What it is for.")
@click.option("--expires-in", metavar="TIMEDELTA", help="How long it is valid, like 90d.")
@_user_option("For another user")
@json_option()
@pass_context
def create(
    context: Context, label: str, expires_in: str | None, user: str | None, as_json: bool
) -> None:
    """Make a token and print it. It cannot be shown again."""
    seconds = parse_duration(expires_in).total_seconds() if expires_in else None
    owner = user or context.client.user
    token = context.run(context.client.users.create_token(owner, label=label, expires_in=seconds))
    if as_json:
        context.out.print(document(token))
        return
    context.out.print(token.token or "")
    context.out.note(
        f"Token {token.id} of {owner} is valid until {iso_seconds(token.expires_at, local_now())}."
    )


def state(token: Token, now: datetime) -> tuple[str, str | None]:
    """What a token is worth now, and the word's colour."""
    if token.revoked_at is not None:
        return "revoked", "red"
    return ("expired", "yellow") if token.expires_at <= now else ("valid", "green")


@click.command("ls", cls=Command, examples="neuro config token ls")
@click.option("-a", "--all", "ended", is_flag=True, help="Revoked and expired ones too.")
@_user_option("Another user's")
@json_option()
@pass_context
def ls(context: Context, ended: bool, user: str | None, as_json: bool) -> None:
    """List your valid tokens; -q prints ids only.

    The server forgets a token a day after it was revoked or has expired.
    """
    out, now = context.out, local_now()
    known = context.run(context.client.users.tokens(user or context.client.user))
    tokens = [token for token in known if ended or state(token, now)[0] == "valid"]
    if as_json:
        out.print(document([{**plain(it), "state": state(it, now)[0]} for it in tokens]))
        return
    if out.quiet:
        for token in tokens:
            out.print(token.id)
        return
    view = View(context.client.user, now, out.iso_dates)
    sheet = first_that_fits(_sheets(tokens, view, out))
    for line in (sheet.header(), *sheet.lines()):
        out.print(line)


def _sheets(tokens: Sequence[Token], view: View, out: Output) -> Iterator[Sheet]:
    def cells(token: Token) -> tuple[Line, ...]:
        expires = iso_seconds(token.expires_at, view.now)
        texts = (token.id, token.label, view.time(token.created_at), expires)
        return (*map(Line, texts), Line(*state(token, view.now)))

    def sheet(*stacks: tuple[int, ...]) -> Sheet:
        """Of these columns, or of several in one."""
        shown = [
            Column("/".join(titles[it] for it in stack), shrinks=stack == (1,)) for stack in stacks
        ]
        rows = [[tuple(row[it] for it in stack) for stack in stacks] for row in told]
        return Sheet(shown, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))

    told = [cells(token) for token in tokens]
    titles = ("ID", "LABEL", "CREATED", "EXPIRES", "STATE")
    yield sheet((0,), (1,), (2,), (3,), (4,))
    yield sheet((0, 1), (2,), (3,), (4,))
    yield sheet((0, 1), (3,), (4,))


@click.command("revoke", cls=Command, examples="neuro config token revoke TOKEN_ID")
@click.argument("token_id")
@_user_option("Another user's")
@click.option("--yes", is_flag=True, help="Do not ask, also where it is the token in use.")
@pass_context
def revoke(context: Context, token_id: str, user: str | None, yes: bool) -> int:
    """Revoke the token with TOKEN_ID, at once and for good."""
    out, owner = context.out, user or context.client.user
    is_in_use = token_id == token_id_in(context.account.token)
    if is_in_use and out.is_terminal and not yes and not agrees(out, QUESTION):
        return INTERRUPTED
    try:
        context.run(context.client.users.revoke_token(owner, token_id))
    except NotFound:
        whose = f" --user {user}" if user else ""
        raise Failure(
            f"{owner} has no token '{token_id}': `neuro config token ls{whose}` lists them.",
            NOT_FOUND,
        ) from None
    out.note(f"Token {token_id} was revoked.")
    if is_in_use:
        out.warning(f"It was the token that you were logged in with here: {new_login(owner)}")
    return 0
