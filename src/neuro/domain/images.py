"""Image references: ``[registry/]path[:tag][@digest]``, as every container tool writes them."""

from __future__ import annotations

import re

from neuro.domain.errors import InvalidInput

MAX_REFERENCE = 512
# The image whose programs are the platform's own: jobs in it run the commands of this very version.
EXECUTOR_IMAGE = "neuro/executor"
_FLOW_NAME = "neuro-flow"  # as the original publishes it, whatever the registry and the tag

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
)
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::\d+)?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?"
)


def check_image(reference: str) -> str:
    """Return ``reference``, or raise InvalidInput with an example of the right form."""
    if len(reference) <= MAX_REFERENCE and _REFERENCE.fullmatch(reference):
        return reference
    raise InvalidInput(
        f"Invalid image '{reference[:80]}': write NAME, NAME:TAG or REGISTRY/NAME:TAG in lower-case"
        " letters, for example ubuntu:latest."
    )


def with_tag(reference: str) -> str:
    """The reference with the tag that is meant where none is written.

    >>> with_tag("ubuntu")
    'ubuntu:latest'
    """
    name = reference.rpartition("/")[2]
    return reference if ":" in name or "@" in name else f"{reference}:latest"


def is_executor_image(reference: str) -> bool:
    """Whether jobs in this image run the platform's own commands.

    >>> is_executor_image("ghcr.io/neuro-inc/neuro-flow:22.8.1")
    True
    """
    path = reference.partition("@")[0]
    folder, slash, name = path.rpartition("/")
    name = name.partition(":")[0]
    return name == _FLOW_NAME or f"{folder}{slash}{name}" == EXECUTOR_IMAGE
