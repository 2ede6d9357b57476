"""The entry point of ``neuro-flow``: global options, the table of commands, exit codes.

Only click is imported here, and nothing looks for a project before a command needs one: help,
``init`` and ``completion`` work anywhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from neuro.cli.context import Context
from neuro.cli.entry import leave, run_command_line
from neuro.cli.lazy import Entry, LazyGroup, write_section
from neuro.flow.cli.context import FlowContext

PROGRAM = "neuro-flow"
COMPLETE_VARIABLE = "_NEURO_FLOW_COMPLETE"


def _entry(module: str, text: str, attribute: str = "command") -> Entry:
    return Entry(f"neuro.flow.cli.{module}:{attribute}", text)


LIVE: Mapping[str, Entry] = {
    "run": _entry("run", "Run a job of live.yml, or connect to it where it runs."),
    "ps": _entry("ps", "List the jobs of live.yml, with what became of each."),
    "status": _entry("status", "Show everything about a job."),
    "logs": _entry("logs", "Print the output of a job, and follow it."),
    "kill": _entry("kill", "Stop a job, or ALL of them."),
    "show": _entry("show", "Print a job as it would be run, or the output of a bake's task."),
}
BATCH: Mapping[str, Entry] = {
    "plan": _entry("plan", "Show what a batch would run, running nothing."),
    "bake": _entry("bake", "Run a batch, and watch its tasks."),
    "bakes": _entry("bakes", "List the runs of batches, with what became of each."),
    "inspect": _entry("inspect", "Show a bake and its tasks, also as a graph."),
    "cancel": _entry("cancel", "Stop a bake."),
    "restart": _entry("restart", "Run again what did not succeed in a bake."),
    "clear-cache": _entry("clear_cache", "Forget outcomes of tasks, so that they run again."),
    "schedule": _entry("schedule", "Have the server start a batch by the clock."),
    "schedules": _entry("schedules", "List the batches that the clock starts.", "schedules"),
    "unschedule": _entry("schedules", "Take a batch off the clock.", "unschedule"),
    "execute": _entry("execute", "Drive a bake, in its main job.")._replace(hidden=True),
}
VOLUMES: Mapping[str, Entry] = {
    "mkvolumes": _entry("volumes", "Make the folders of all volumes in the storage.", "mkvolumes"),
    "upload": _entry("volumes", "Send a volume's local folder to the storage.", "upload"),
    "download": _entry("volumes", "Get a volume's folder from the storage.", "download"),
    "clean": _entry("volumes", "Remove a volume's folder from the storage.", "clean"),
}
IMAGES: Mapping[str, Entry] = {"build": _entry("build", "Build an image.")}
PROJECT: Mapping[str, Entry] = {
    "init": _entry("init", "Make the folder of a new project."),
    "check": _entry("check", "Find every mistake in the flow files, running nothing."),
    "schema": _entry("schema", "Print the JSON Schema of a kind of file, for editors."),
    "delete-project": _entry("delete_project", "Forget projects on the server."),
}
COMPLETION: Mapping[str, Entry] = {
    "generate": _entry("completion", "Print a shell's completion script.", "generate"),
    "patch": _entry("completion", "Add completion to the shell's start-up file.", "patch"),
}


class Root(LazyGroup):
    """``neuro-flow`` itself."""

    def invoke(self, ctx: click.Context) -> Any:
        ctx.obj = FlowContext.of(**ctx.params)
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections = (
            ("Live jobs", LIVE),
            ("Batches", BATCH),
            ("Volumes", VOLUMES),
            ("Images", IMAGES),
            ("The project", PROJECT),
        )
        for title, entries in sections:
            shown = [(name, it.help) for name, it in entries.items() if not it.hidden]
            write_section(formatter, title, shown)
        groups = [(name, group.get_short_help_str(200)) for name, group in self.groups.items()]
        write_section(formatter, "Shells", groups)


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from neuro import __version__

        click.echo(f"neuro-flow package version: {__version__}")
        ctx.exit()


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--config"],
            metavar="PATH",
            help="The project's folder, or one inside; default: where you are.",
        ),
        click.Option(["-v", "--verbose"], count=True, help="Say more; twice for even more."),
        click.Option(["-q", "--quiet"], count=True, help="Say less; lists become bare ids."),
        click.Option(
            ["--color"],
            type=click.Choice(["yes", "no", "auto"]),
            default="auto",
            help="When to use colours.",
        ),
        click.Option(["--show-traceback"], is_flag=True, help="Show where an error came from."),
        # A main job calls this elsewhere: it has no project's folder, and needs none.
        click.Option(["--fake-workspace"], is_flag=True, hidden=True, expose_value=False),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Print the version.",
        ),
    ]


def root() -> Root:
    """The whole command tree, with nothing of it imported yet."""
    completion = LazyGroup(
        "completion",
        help="Shell completion.",
        entries=COMPLETION,
        examples="neuro-flow completion patch bash",
    )
    return Root(
        PROGRAM,
        params=_options(),
        help="A project's work, described in .neuro: single jobs in live.yml, and batches of tasks"
        " that need each other in a file of their own. Run it, watch it, stop it.",
        entries={**LIVE, **BATCH, **VOLUMES, **IMAGES, **PROJECT},
        groups={"completion": completion},
        no_args_is_help=True,
        context_settings={"help_option_names": ["--help"], "max_content_width": 100},
        examples="""
            neuro-flow mkvolumes && neuro-flow upload ALL   # send code and data
            neuro-flow run train                            # run a job and see its output
            neuro-flow ps                                   # what became of each job
            neuro-flow bake sweep --name night              # run a batch of tasks
            neuro-flow inspect night --graph                # see how far it is
        """,
    )


def _report(error: BaseException, context: Context | None) -> int:
    from neuro.flow.cli.failures import report

    return report(error, context)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    return run_command_line(root(), PROGRAM, arguments, _report)


def main() -> None:
    """The console script."""
    if COMPLETE_VARIABLE in os.environ:
        from neuro.cli.completion import respond

        sys.exit(respond(root(), PROGRAM))
    leave(execute(sys.argv[1:]))
