"""``neuro secret``: values that jobs get, and nobody is shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.output import Output, terminal_width
from neuro.cli.render.job_row import View
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.table import Column, Line, Sheet
from neuro.cli.render.times import local_now
from neuro.cli.render.uris import short_uri
from neuro.domain.errors import InvalidInput
from neuro.domain.secrets import MAX_VALUE, SecretEntry, check_secret_value
from neuro.domain.uris import typed_text

_SHOWN_JOBS = 2


@click.command(
    "add",
    cls=Command,
    examples="""
        neuro secret add wandb-token                 # asks, and shows nothing
        neuro secret add deploy-key @~/.ssh/id_ed25519
        pass wandb | neuro secret add wandb-token -
        neuro secret add secret:/bob/shared-token -  # Bob lets you write it
        neuro run -e WANDB_API_KEY=secret:wandb-token ubuntu env
    """,
)
@click.argument("key")
@click.argument("value", required=False)
@pass_context
def add(context: Context, key: str, value: str | None) -> None:
    """Add the secret KEY, or give it a new value.

    VALUE is the value itself, @FILE for a file's content, or - for standard
    input; without it you are asked. A VALUE on the command line stays in the
    shell's history, and other users of this machine can see it while the
    command runs: prefer one of the other ways.
    """
    secrets = context.client.secrets
    uri = secrets.uri(key)  # before anything is asked
    content = check_secret_value(_value(value, typed_text(uri)))
    given = context.run(secrets.put(typed_text(uri), content))
    if value == "-" and content.endswith(b"\n") and content.count(b"\n") == 1:
        context.out.warning(
            "The value ends with a line end, which came with it: `printf %s` writes none."
        )
    context.out.info(f"{typed_text(uri)} has version {given.version} now.")


def _value(given: str | None, uri: str) -> bytes:
    if given is None:
        if not sys.stdin.isatty():
            raise click.UsageError("Say what the value is: VALUE, @FILE, or - for standard input.")
        return str(click.prompt(f"Value of {uri}", hide_input=True, err=True)).encode()
    if given == "-":
        return sys.stdin.buffer.read(MAX_VALUE + 1)
    if not given.startswith("@"):
        return given.encode(errors="surrogateescape")
    path = Path(given[1:]).expanduser()
    try:
        with path.open("rb") as file:
            return file.read(MAX_VALUE + 1)
    except OSError as error:
        raise InvalidInput(f"The file {path} cannot be read: {error.strerror}.") from None


@click.command(
    "ls",
    cls=Command,
    examples="""
        neuro secret ls
        neuro -q secret ls                       # keys only
        neuro secret ls --json | jq -r '.[] | select(.used_by == []) | .key'
    """,
)
@json_option()
@pass_context
def ls(context: Context, as_json: bool) -> None:
    """List your secrets and those shared with you, and the jobs that use them.

    Values are never shown. Of jobs you see those that you may see.
    """
    client, out = context.client, context.out
    found = context.run(client.secrets.all())
    if as_json:
        out.print(document(found))
        return
    names = [_name(entry, client.cluster, client.user) for entry in found]
    if out.quiet:
        for name in names:
            out.print(name)
        return
    for line in _table(found, names, View(client.user, local_now(), out.iso_dates), out):
        out.print(line)


def _name(entry: SecretEntry, cluster: str, user: str) -> str:
    """One's own by the key alone, others' by their URI."""
    return entry.key if entry.owner == user else short_uri(entry.uri, cluster, user)


def _table(
    found: Sequence[SecretEntry], names: Sequence[str], view: View, out: Output
) -> list[str]:
    titles = ("KEY", "VERSION", "CHANGED", "BY", "USED BY")
    rows = [
        [
            (Line(text),)
            for text in (
                name,
                str(entry.version),
                view.time(entry.created_at),
                entry.created_by,
                _jobs(entry.used_by),
            )
        ]
        for name, entry in zip(names, found, strict=True)
    ]
    columns = [Column(title, shrinks=title in ("KEY", "USED BY")) for title in titles]
    sheet = Sheet(columns, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))
    return [sheet.header(), *sheet.lines()]


def _jobs(ids: Sequence[str]) -> str:
    more = len(ids) - _SHOWN_JOBS
    return ", ".join(ids[:_SHOWN_JOBS]) + (f" and {more} more" if more > 0 else "")


@click.command(
    "rm",
    cls=Command,
    examples="""
        neuro secret rm wandb-token
        neuro secret rm old-token older-token
    """,
)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@pass_context
def rm(context: Context, keys: tuple[str, ...]) -> None:
    """Remove secrets, with all their versions.

    Jobs that run keep the value that they have; a job that is to begin or to
    restart with it fails.
    """
    secrets = context.client.secrets
    uris = [typed_text(secrets.uri(key)) for key in keys]
    for uri in uris:
        context.run(secrets.remove(uri))
        context.out.info(f"Removed {uri}.")


@click.command("history", cls=Command, examples="neuro secret history wandb-token")
@click.argument("key")
@json_option()
@pass_context
def history(context: Context, key: str, as_json: bool) -> None:
    """List the versions of the secret KEY: the last ten are kept."""
    out = context.out
    found = context.run(context.client.secrets.versions(key))
    if as_json:
        out.print(document(found))
        return
    view = View(context.client.user, local_now(), out.iso_dates)
    rows = [
        [(Line(text),) for text in (str(it.version), view.time(it.created_at), it.created_by)]
        for it in found
    ]
    columns = [Column("VERSION"), Column("GIVEN"), Column("BY")]
    sheet = Sheet(columns, rows, terminal_width(), lambda text, fg: out.style(text, fg=fg))
    for line in (sheet.header(), *sheet.lines()):
        out.print(line)


@click.command("restore", cls=Command, examples="neuro secret restore wandb-token 3")
@click.argument("key")
@click.argument("version", type=click.IntRange(min=1))
@pass_context
def restore(context: Context, key: str, version: int) -> None:
    """Give the secret KEY the value of an earlier VERSION again.

    It becomes a new version; jobs that begin from now on get it.
    """
    given = context.run(context.client.secrets.restore(key, version))
    context.out.note(
        f"'{key}' has the value of version {version} again, as version {given.version}."
    )


@click.command("rotate-secret-key", cls=Command, examples="neuro admin rotate-secret-key")
@json_option()
@pass_context
def rotate_key(context: Context, as_json: bool) -> int:
    """Make a new key, and encrypt every secret with it; jobs and servers go on.

    The key is in a file of the server, outside of the database. Where several
    servers have copies of the file, copy it to them afterwards: until then
    they can start no jobs with secrets. Earlier keys stay in it, for earlier
    back-ups of the database.
    """
    out = context.out
    done = context.run(context.client.secrets.rotate_key())
    if as_json:
        out.print(document(done))
        return 1 if done.unreadable else 0
    out.print(f"Encrypted {done.encrypted} values with the new key {done.key_id}.")
    out.print(f"Keep a copy of {done.key_file}: without it nobody can read the secrets.")
    if done.unreadable:
        out.error(
            f"{done.unreadable} values cannot be read, as their key is not in the file or they are"
            " damaged: the server's log names them."
        )
        return 1
    return 0
