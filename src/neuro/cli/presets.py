"""``neuro admin …-resource-preset``: presets, for administrators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.render.presets import presets_table
from neuro.domain.server_config import PresetRequest
from neuro.domain.sizes import parse_bytes

_OPTIONS = (
    click.option("-c", "--cpu", type=float, metavar="NUMBER", help="CPU cores."),
    click.option("-m", "--memory", metavar="AMOUNT", help="Memory, such as 2G."),
    click.option("-g", "--gpu", type=int, metavar="NUMBER", help="How many GPUs; 0 for none."),
    click.option("--gpu-model", metavar="MODEL", help="What its GPUs are called."),
    click.option("--engine", metavar="NAME", help="Which engine runs its jobs."),
    click.option(
        "--disk", metavar="AMOUNT", help="Private files of a job, such as 50G; 0 for no limit."
    ),
    click.option("--credits-per-hour", metavar="AMOUNT", help="The price."),
    click.option(
        "--preemptible-node/--non-preemptible-node",
        default=None,
        help="Whether its jobs run on a node that may go away.",
    ),
)


def _preset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _request(name: str | None, options: dict[str, Any]) -> PresetRequest:
    """Raises InvalidInput for an amount that is not one."""
    for key in ("memory", "disk"):
        if options[key] is not None:
            options[key] = parse_bytes(options[key])
    return PresetRequest(name=name, **options)


@click.command(
    "add-resource-preset",
    cls=Command,
    examples="""
        neuro admin add-resource-preset cpu-medium -c 4 -m 8G
        neuro admin add-resource-preset gpu -c 8 -m 32G -g 1 --engine docker
    """,
)
@click.argument("name", metavar="PRESET")
@_preset_options
@pass_context
def add(context: Context, /, name: str, **options: Any) -> None:
    """Add PRESET, for jobs that are submitted from now on; by default 0.1 CPU and 1G.

    The first such change takes the presets over from server.toml: from then on they are kept by
    the server, and those of the file are not used.
    """
    options["cpu"] = 0.1 if options["cpu"] is None else options["cpu"]
    options["memory"] = options["memory"] or "1G"
    context.run(context.client.presets.add(_request(name, options)))
    context.out.note(f"Added preset {name}.")


@click.command(
    "update-resource-preset",
    cls=Command,
    examples="""
        neuro admin update-resource-preset cpu-small -m 4G
        neuro admin update-resource-preset gpu --engine docker --disk 200G
    """,
)
@click.argument("preset")
@_preset_options
@pass_context
def update(context: Context, /, preset: str, **options: Any) -> None:
    """Change PRESET, for jobs that are submitted from now on; what you leave out stays."""
    if all(value is None for value in options.values()):
        raise click.UsageError("Say what to change: -c, -m, -g or another option.")
    context.run(context.client.presets.update(preset, _request(None, options)))
    context.out.note(f"Changed preset {preset}.")


@click.command(
    "remove-resource-preset",
    cls=Command,
    examples="neuro admin remove-resource-preset cpu-medium",
)
@click.argument("preset")
@pass_context
def remove(context: Context, preset: str) -> None:
    """Remove PRESET; jobs that have it go on."""
    context.run(context.client.presets.remove(preset))
    context.out.note(f"Removed preset {preset}.")


@click.command("list-resource-presets", cls=Command, examples="neuro admin list-resource-presets")
@json_option()
@pass_context
def ls(context: Context, as_json: bool) -> None:
    """List the presets; the first one is the default."""
    out = context.out
    found = context.run(context.client.presets.all())
    if as_json:
        out.print(document(found))
        return
    if out.quiet:
        for preset in found:
            out.print(preset.name)
        return
    for line in presets_table(found, indent=0):
        out.print(line)
