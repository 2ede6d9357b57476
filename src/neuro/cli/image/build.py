"""``neuro image build``: an image of a Dockerfile, built on the platform."""

from __future__ import annotations

import os

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.lazy import Command
from neuro.cli.render.json_text import document, json_option
from neuro.cli.volumes import volume_option


@click.command(
    "build",
    cls=Command,
    examples="""
        neuro image build -t image:trainer:v2 .
        neuro image build -t trainer:v2 -f docker/gpu.Dockerfile --target serve .
        neuro image build -t trainer:v2 --build-arg PYTHON=3.12 -F .
        neuro image build -t trainer:v2 --secret id=pip,src=$HOME/.pip/pip.conf .
        neuro image build -t trainer:v2 --secret id=pip,src=secret:pip-conf .
        neuro image build -t trainer:v2 storage:trainer    # a folder of the storage
    """,
)
@click.argument("path", metavar="CONTEXT")
@click.option(
    "-t",
    "--tag",
    "tags",
    metavar="IMAGE",
    multiple=True,
    required=True,
    help="What it is called: image:NAME:TAG (repeatable).",
)
@click.option(
    "-f", "--file", metavar="PATH", help="The Dockerfile, in CONTEXT or here; 'Dockerfile'."
)
@click.option(
    "--build-arg",
    "build_args",
    metavar="VAR=VAL",
    multiple=True,
    help="A value for an ARG; VAR alone copies yours (repeatable).",
)
@click.option("--target", metavar="STAGE", help="Build this stage; default: the last one.")
@click.option(
    "--secret",
    "secrets",
    metavar="id=NAME,src=FILE",
    multiple=True,
    help="A file for RUN --mount=type=secret; or env=VAR, or src=secret:KEY (repeatable).",
)
@volume_option("A storage folder for the builder")
@click.option(
    "-e",
    "--env",
    metavar="VAR=VAL",
    multiple=True,
    help="What `--build-arg VAR` takes its value from (repeatable).",
)
@click.option(
    "-s",
    "--preset",
    metavar="PRESET",
    help="Resources for the build; default: the first preset.",
)
@click.option("--no-cache", is_flag=True, help="Run every step, also one that has not changed.")
@click.option("-F", "--force-overwrite", is_flag=True, help="Build it even if it exists.")
@json_option("Print one JSON document at the end; what the build prints goes to standard error.")
@pass_context
def command(
    context: Context,
    path: str,
    tags: tuple[str, ...],
    file: str | None,
    build_args: tuple[str, ...],
    target: str | None,
    secrets: tuple[str, ...],
    volumes: tuple[str, ...],
    env: tuple[str, ...],
    preset: str | None,
    no_cache: bool,
    force_overwrite: bool,
    as_json: bool,
) -> int:
    """Build an image of the Dockerfile in CONTEXT, and push it to the registry.

    CONTEXT is a folder of this machine or of the storage. A local one is sent, but for what
    `.dockerignore` leaves out. Ctrl-C ends the build.
    """
    from neuro.cli.building.build import build, say_built
    from neuro.cli.building.wanted import Wanted, read_secret, tagged
    from neuro.cli.job.log_copy import write_all
    from neuro.client.builds import platform_secret

    out = context.out
    if as_json:
        out.leave_stdout_to_job()
    given = {it: platform_secret(it, number) for number, it in enumerate(secrets)}
    of_platform = {it: found for it, found in given.items() if found is not None}
    wanted = Wanted(
        context=path,
        images=tuple(tagged(context, it) for it in tags),
        dockerfile=file,
        build_args=build_args,
        target=target,
        secrets=tuple(read_secret(it, os.environ) for it in secrets if it not in of_platform),
        volumes=(*volumes, *(volume for volume, _ in of_platform.values())),
        env=env,
        preset=preset,
        cache=not no_cache,
        force=force_overwrite,
        more=tuple(argument for _, argument in of_platform.values()),
    )
    built = build(context, wanted, log=2 if as_json else 1)
    if as_json:
        told = {
            "images": [str(image) for image in wanted.images],
            "digest": built.digest,
            "size": built.size,
            "job": built.job.id,
            "exit_code": built.exit_code,
        }
        write_all(1, f"{document(told)}\n".encode())
    elif built.exit_code == 0:
        say_built(context, wanted.images, built)
    return built.exit_code
