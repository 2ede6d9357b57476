"""``neuro-flow completion``: the scripts for bash, zsh and fish."""

from __future__ import annotations

import click

from neuro.cli.completion import SCRIPTS, patch_start_file, script
from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.main import PROGRAM

_SHELL = click.Choice(sorted(SCRIPTS))


@click.command(
    "generate",
    cls=Command,
    examples='eval "$(neuro-flow completion generate bash)"  # this shell only',
)
@click.argument("shell", type=_SHELL)
@pass_context
def generate(context: FlowContext, shell: str) -> None:
    """Print the completion script of SHELL."""
    context.out.print(script(shell, PROGRAM), newline=False)


@click.command("patch", cls=Command, examples="neuro-flow completion patch bash")
@click.argument("shell", type=_SHELL)
@pass_context
def patch(context: FlowContext, shell: str) -> None:
    """Add completion to the start-up file of SHELL. A second call changes nothing."""
    patch_start_file(context.out, shell, PROGRAM)
