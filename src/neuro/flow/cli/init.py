"""``neuro-flow init``: a new project's folder."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command, Entry
from neuro.flow.cli.context import FlowContext, pass_context

_INIT = Entry("neuro.cli.project.init:command", "")


@click.command("init", cls=Command, examples="neuro-flow init")
@click.argument("template", type=click.Choice(["default"]), default="default")
@click.option("--no-input", is_flag=True, help="Ask nothing: take the defaults.")
@pass_context
def command(context: FlowContext, template: str, no_input: bool) -> int:
    """Make the folder of a new project, with a small example that works.

    Asks for its names, as `neuro project init` does.
    """
    from neuro.flow.cli.platform import neuro

    del template  # There is one so far.
    return neuro(context, _INIT, *(["--no-input"] if no_input else []), name="project init")
