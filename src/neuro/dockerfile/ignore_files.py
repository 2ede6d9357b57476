"""Where the patterns of a build are: apart from what reads them, which most builds do not need."""

from __future__ import annotations


def names_of_ignore_file(dockerfile: str) -> tuple[str, str]:
    """Where the patterns are looked for: beside the Dockerfile by its name, then in the context.

    >>> names_of_ignore_file("docker/gpu.Dockerfile")
    ('docker/gpu.Dockerfile.dockerignore', '.dockerignore')
    """
    return f"{dockerfile}.dockerignore", ".dockerignore"
