"""``neuro config docker``."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import click

from neuro.cli.context import Context, pass_context
from neuro.cli.failures import CONFIG, Failure
from neuro.cli.lazy import Command

HELPER = "neuro"  # Docker runs docker-credential-neuro


@click.command(
    "docker",
    cls=Command,
    examples="""
        neuro config docker
        neuro config docker --docker-config ~/other/docker
    """,
)
@click.option(
    "--docker-config", metavar="PATH", help="The folder of Docker's configuration, or its file."
)
@pass_context
def command(context: Context, docker_config: str | None) -> None:
    """Have Docker, podman and others find your token by themselves.

    Names docker-credential-neuro in Docker's configuration for the registry of the current server.
    The rest of the file stays as it is.
    """
    host, user = context.client.images.host, context.client.user
    place = docker_config or os.environ.get("DOCKER_CONFIG") or "~/.docker"
    path = Path(place).expanduser()
    if path.suffix != ".json":
        path /= "config.json"
    try:
        _write(path, with_helper(_read(path), host))
    except (ValueError, RecursionError) as error:
        raise Failure(
            f"{path} cannot be read ({error}): mend it or move it away.", CONFIG
        ) from None
    context.out.print(f"Configuration file {path} updated.")
    context.out.print(f"Registry: {host}. Push with: docker push {host}/{user}/NAME:TAG")


def with_helper(content: str, host: str) -> str:
    """Docker's configuration with our helper for one registry. Raises ValueError for no such."""
    config = json.loads(content)
    if not isinstance(config, dict) or not isinstance(config.get("credHelpers", {}), dict):
        raise ValueError("it is not a configuration of Docker's")
    helpers = {**config.get("credHelpers", {}), host: HELPER}
    return json.dumps({**config, "credHelpers": helpers}, indent="\t", ensure_ascii=False) + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return "{}"


def _write(path: Path, content: str) -> None:
    """In one step, with the mode that it had, or readable by its owner only."""
    # A link, of those who keep such files elsewhere, stays one.
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
    try:
        with os.fdopen(number, "w") as file:
            os.fchmod(number, mode)
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
