"""``neuro-flow delete-project``: forget projects on the server."""

from __future__ import annotations

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.names import offer


@click.command("delete-project", cls=Command, examples="neuro-flow delete-project my_project")
@click.argument(
    "project_ids",
    metavar="PROJECT_ID...",
    nargs=-1,
    required=True,
    shell_complete=offer("projects"),
)
@pass_context
def command(context: FlowContext, project_ids: tuple[str, ...]) -> int:
    """Remove what the server knows of projects. Their jobs and files stay as they are."""
    flows, code = context.client.flows, 0
    for name in project_ids:
        project = context.run(flows.project_by_name(name))
        if project is None:
            context.out.error(f"Unknown project {name}")
            code = 1
            continue
        context.run(flows.delete_project(project.id))
        context.out.print(f"Project '{name}' was successfully removed.")
    return code
