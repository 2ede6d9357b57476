"""The secrets of a build: where each one's content is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from neuro.builder.arguments import Secret
from neuro.builder.faults import BuildFault
from neuro.builder.sources import Sources

_LARGEST = 1 << 20


def content(secrets: Mapping[str, Secret], sources: Sources, name: str) -> bytes | None:
    """A secret's content, None where there is none of this name. Raises BuildFault.

    ``sources`` are where its file may be.
    """
    secret = secrets.get(name)
    if secret is None:
        return None
    if secret.variable:
        value = os.environ.get(secret.variable)
        return None if value is None else os.fsencode(value)
    try:
        with os.fdopen(sources.open(secret.file), "rb") as file:
            found = file.read(_LARGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildFault(
            f"The file {secret.file} of the secret '{name}' cannot be read: {error.strerror}."
        ) from None
    if len(found) > _LARGEST:
        raise BuildFault(f"The secret '{name}' is larger than 1 MiB.")
    return found
