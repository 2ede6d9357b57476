"""The entry point of ``neuro``: global options, the table of commands, errors to exit codes.

Only click is imported here. A command is a line of a table below: ``module:attribute`` and its
one-line help. Its module is imported when it is called; in it, the attribute ``command`` is a
``click.Command`` (``cls=Command`` from ``neuro.cli.lazy`` adds ``examples=``), whose callback
takes ``@pass_context`` from ``neuro.cli.context``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from neuro.cli.context import Context
from neuro.cli.entry import leave, run_command_line
from neuro.cli.lazy import Entry, LazyGroup, write_examples, write_section


def _table(package: str, **helps: str) -> dict[str, Entry]:
    return {
        name.replace("_", "-"): Entry(f"neuro.cli.{package}.{name}:command", text)
        for name, text in helps.items()
    }


JOB = _table(
    "job",
    run="Run a job: an image, a command, a preset.",
    ls="List jobs.",
    status="Show everything about a job.",
    logs="Print the output of a job, and follow it.",
    attach="Attach the terminal to a running job.",
    exec="Run a command inside a running job.",
    top="Show what running jobs use, as it changes.",
    kill="Stop jobs.",
    save="Save a running job as an image.",
    port_forward="Forward local ports into a running job.",
    browse="Say where a job's web page is.",
    bump_life_span="Let a job live longer.",
    generate_run_command="Print the `neuro run` line that makes this job again.",
)
STORAGE = _table(
    "storage",
    cp="Copy files to and from the storage.",
    ls="List a folder of the storage.",
    rm="Remove files and folders.",
    mkdir="Make folders.",
    mv="Move or rename files and folders.",
    tree="Show a folder as a tree.",
    glob="List what matches wildcards.",
    df="Show how full the storage is.",
)
CONFIG = _table(
    "config",
    show="Show the user, the cluster, its address and its presets.",
    login="Log in to a server.",
    login_with_token="Log in with a token.",  # noqa: S106
    logout="Log out of the current server.",
    show_token="Print the current token.",  # noqa: S106
    get_clusters="List the clusters of all known servers.",
    switch_cluster="Change the current cluster.",
    docker="Have Docker find your token by itself.",
    aliases="List the aliases of the configuration files.",
)
TOKEN = {
    "create": Entry("neuro.cli.config.token:create", "Make a token for a script or a machine."),
    "ls": Entry("neuro.cli.config.token:ls", "List tokens."),
    "revoke": Entry("neuro.cli.config.token:revoke", "Revoke a token."),
}
ADMIN = {
    "users": Entry("neuro.cli.admin:users", "List the users."),
    "add-user": Entry("neuro.cli.admin:add_user", "Add a user, and print a token for them."),
    "usage": Entry("neuro.cli.usage:command", "Show what each person uses."),
    "remove-user": Entry("neuro.cli.admin:remove_user", "Remove a user."),
    "list-resource-presets": Entry("neuro.cli.presets:ls", "List the presets."),
    "add-resource-preset": Entry("neuro.cli.presets:add", "Add a preset."),
    "update-resource-preset": Entry("neuro.cli.presets:update", "Change a preset."),
    "remove-resource-preset": Entry("neuro.cli.presets:remove", "Remove a preset."),
    "rotate-secret-key": Entry("neuro.cli.secret:rotate_key", "Change the key of secrets."),
}
ACL = {
    "grant": Entry("neuro.cli.acl:grant", "Share something with a user, a role or everybody."),
    "revoke": Entry("neuro.cli.acl:revoke", "Take back what was shared."),
    "ls": Entry("neuro.cli.acl:ls", "List what you may do, or what you share."),
    "explain": Entry("neuro.cli.acl:explain", "Say who may do what on a URI, and why."),
    "add-role": Entry("neuro.cli.acl:add_role", "Make a role."),
    "remove-role": Entry("neuro.cli.acl:remove_role", "Remove a role."),
    "list-roles": Entry("neuro.cli.acl:list_roles", "List your roles."),
}
IMAGE = {
    "build": Entry("neuro.cli.image.build:command", "Build an image of a Dockerfile."),
    "push": Entry("neuro.cli.image.push:command", "Push an image to the platform's registry."),
    "pull": Entry("neuro.cli.image.pull:command", "Pull an image from the platform's registry."),
    "ls": Entry("neuro.cli.image.registry:ls", "List images."),
    "tags": Entry("neuro.cli.image.registry:tags", "List the tags of an image."),
    "size": Entry("neuro.cli.image.registry:size", "Show how large an image is."),
    "digest": Entry("neuro.cli.image.registry:digest", "Print the digest of an image."),
    "rm": Entry("neuro.cli.image.registry:rm", "Remove images."),
    "rules": Entry("neuro.cli.image.upkeep:rules", "Show or set which tags of an image stay."),
    "quota": Entry("neuro.cli.image.upkeep:quota", "Show or set how much images may take."),
    "gc": Entry("neuro.cli.image.registry:gc", "Show what of images is on the disk, and why."),
}
SECRET = {
    "add": Entry("neuro.cli.secret:add", "Add a secret, or give it a new value."),
    "ls": Entry("neuro.cli.secret:ls", "List secrets, and which jobs use them."),
    "rm": Entry("neuro.cli.secret:rm", "Remove secrets."),
    "history": Entry("neuro.cli.secret:history", "List the versions of a secret."),
    "restore": Entry("neuro.cli.secret:restore", "Give a secret an earlier value again."),
}
SERVER = {
    "up": Entry("neuro.cli.server.up:command", "Start the server in the background."),
    "down": Entry("neuro.cli.server.down:command", "Stop the server; jobs go on running."),
    "run": Entry("neuro.cli.server.run:command", "Run the server in the foreground."),
    "reload": Entry("neuro.cli.server.reload:command", "Apply a changed server.toml."),
    "status": Entry("neuro.cli.server.status:command", "Say whether the server runs, and where."),
}
PROJECT = {"init": Entry("neuro.cli.project.init:command", "Make a new project's folder.")}
COMPLETION = {
    "generate": Entry("neuro.cli.completion:generate", "Print a shell's completion script."),
    "patch": Entry("neuro.cli.completion:patch", "Add completion to the shell's start-up file."),
}

PLATFORM: Mapping[str, Entry] = {
    "up": SERVER["up"],
    "down": SERVER["down"],
    "doctor": Entry(
        "neuro.cli.server.doctor:command", "Say what this machine has for jobs, and what it lacks."
    ),
    "login": CONFIG["login"],
    "logout": CONFIG["logout"],
    "help": Entry("neuro.cli.help:command", "Show help for a command or a topic."),
}
SHORTCUTS: Mapping[str, Entry] = {
    "run": JOB["run"],
    "ps": JOB["ls"],
    "status": JOB["status"],
    "logs": JOB["logs"],
    "attach": JOB["attach"],
    "exec": JOB["exec"],
    "top": JOB["top"],
    "kill": JOB["kill"],
    "save": JOB["save"],
    "port-forward": JOB["port-forward"],
    "cp": STORAGE["cp"],
    "ls": STORAGE["ls"],
    "rm": STORAGE["rm"],
    "mkdir": STORAGE["mkdir"],
    "mv": STORAGE["mv"],
    "push": IMAGE["push"],
    "pull": IMAGE["pull"],
    "share": ACL["grant"],
}
TOPICS: Mapping[str, str] = {
    "aliases": "Commands of your own.",
    "secrets": "Values that jobs get and nobody is shown.",
    "sharing": "Sharing with others.",
    "ps-format": "The columns of `neuro ps`.",
    "top-format": "The columns of `neuro top`.",
    "user-config": "The files user.toml and .neuro.toml.",
}


def _group(
    name: str, text: str, entries: Mapping[str, Entry], examples: str, **groups: click.Group
) -> LazyGroup:
    return LazyGroup(name, help=text, entries=entries, groups=groups, examples=examples)


def _groups() -> dict[str, click.Group]:
    token = _group("token", "Tokens for scripts.", TOKEN, "neuro config token create --label ci")
    listed = (
        _group("job", "Jobs: run, watch, stop.", JOB, "neuro job run ubuntu echo hello"),
        _group("storage", "Files on the platform.", STORAGE, "neuro storage ls -l storage:"),
        _group("image", "Images of jobs.", IMAGE, "neuro image build -t image:trainer:v1 ."),
        _group("secret", "Secrets of jobs.", SECRET, "neuro secret add wandb-token"),
        _group("acl", "Sharing: who may do what.", ACL, "neuro acl ls --shared"),
        _group("project", "New projects.", PROJECT, "neuro project init 'Neuro Tutorial'"),
        _group("config", "Who and where you are.", CONFIG, "neuro config show", token=token),
        _group("server", "The server on this machine.", SERVER, "neuro server status"),
        _group("admin", "Users and presets, for admins.", ADMIN, "neuro admin add-user anna"),
        _group("completion", "Shell completion.", COMPLETION, "neuro completion patch bash"),
    )
    return {str(group.name): group for group in listed}


class Root(LazyGroup):
    """``neuro`` itself: other words may be aliases of the configuration files."""

    def invoke(self, ctx: click.Context) -> Any:
        # Before the command is looked up: an alias is looked up in the configuration.
        ctx.obj = Context.from_options(**ctx.params)
        return super().invoke(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and isinstance(ctx.obj, Context):
            from neuro.cli.aliases import alias_command

            command = alias_command(ctx.obj.user_config, cmd_name, self)
        return command

    def unknown(self, name: str, others: Iterable[str] = ()) -> str:
        from neuro.cli.habits import about_command

        groups = [
            f"{group} {name}"
            for group, its in self.groups.items()
            if isinstance(its, LazyGroup) and name in its.entries
        ]
        hint = f"There is `neuro {groups[0]}`." if groups else about_command(name)
        if hint is not None:
            return f"No such command '{name}'. {hint}"
        return super().unknown(name, others)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        def helps(entries: Mapping[str, Entry]) -> list[tuple[str, str]]:
            return [(name, entry.help) for name, entry in entries.items()]

        groups = [(name, group.get_short_help_str(200)) for name, group in self.groups.items()]
        write_section(formatter, "Platform", helps(PLATFORM))
        write_section(formatter, "Command Shortcuts", helps(SHORTCUTS))
        write_section(formatter, "Commands", groups)
        write_section(formatter, "Help topics (neuro help TOPIC)", list(TOPICS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from neuro import __version__

        click.echo(f"Neuro Platform Client {__version__}")
        ctx.exit()


def _flag(*names: str, text: str, **more: Any) -> click.Option:
    return click.Option(list(names), help=text, **more)


def _options() -> list[click.Parameter]:
    unused = "Accepted for scripts, without effect: no statistics are sent."
    return [
        _flag("-v", "--verbose", text="Say more; twice for even more.", count=True),
        _flag("-q", "--quiet", text="Say less; lists become bare ids.", count=True),
        _flag(
            "--neuromation-config",
            "config_dir",
            text="The folder of the configuration files.",
            metavar="PATH",
            envvar="NEUROMATION_CONFIG",
            default="~/.neuro",
            show_default=True,
        ),
        _flag(
            "--color",
            text="When to use colours.",
            type=click.Choice(["yes", "no", "auto"]),
            default="auto",
        ),
        _flag("--network-timeout", text="Seconds for connecting and reading.", default=60.0),
        _flag("--show-traceback", text="Show where an error came from.", is_flag=True),
        _flag("--trace", text="Print each request and answer on stderr, and when.", is_flag=True),
        _flag("--iso-datetime-format", "iso_dates", text="Dates in ISO format.", is_flag=True),
        _flag("--skip-stats/--no-skip-stats", text=unused, hidden=True, expose_value=False),
        _flag(
            "--disable-pypi-version-check",
            text=unused,
            hidden=True,
            is_flag=True,
            expose_value=False,
        ),
        _flag(
            "--version",
            text="Print the version.",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
        ),
    ]


def root() -> Root:
    """The whole command tree, with nothing of it imported yet."""
    return Root(
        "neuro",
        params=_options(),
        help="Your machines as an ML platform: jobs, files and people, from the command line.",
        entries={**PLATFORM, **SHORTCUTS},
        groups=_groups(),
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help"], "max_content_width": 100},
        examples="""
            neuro up                                # start the platform on this machine
            neuro run ubuntu echo 'Hello, World!'   # run a job and see its output
            neuro ps                                # what runs now
        """,
    )


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code (docs/reference/wire-protocol.md#errors)."""

    def report(error: BaseException, context: Context | None) -> int:
        from neuro.cli.failures import report

        return report(error, context)

    return run_command_line(root(), "neuro", arguments, report)


def main() -> None:
    """The console script."""
    if "_NEURO_COMPLETE" in os.environ:
        from neuro.cli.completion import answer

        sys.exit(answer(root()))
    leave(execute(sys.argv[1:]))
