"""Refusals of a submission in the words of ``neuro run``: the wire's field is nobody's typing."""

from __future__ import annotations

from neuro.domain.errors import InvalidInput, PlatformError, TooLarge

_TYPED_AS = {
    "cluster_name": "--cluster",
    "preset_name": "--preset",
    "name": "--name",
    "description": "--description",
    "tags": "--tag",
    "image": "IMAGE",
    "entrypoint": "--entrypoint",
    "command": "CMD",
    "working_dir": "--workdir",
    "env": "--env",
    "secret_env": "--env",
    "volumes": "--volume",
    "secret_volumes": "--volume",
    "disk_volumes": "--volume",
}


def in_words_of_run(error: PlatformError) -> PlatformError:
    """The same error, said with the option or argument that was typed, where one is to blame."""
    if isinstance(error, TooLarge):
        words = (
            "The command, the variables and the other options are too much for one request: put"
            " what is large into a file on a volume."
        )
    elif isinstance(error, InvalidInput) and error.field is not None:
        words = error.message.replace(f"'{error.field}'", _typed(error.field), 1)
    else:
        return error
    said = type(error)(words)
    said.from_server = error.from_server
    return said


def _typed(field: str) -> str:
    """What is typed for a field such as ``tags[0]``, ``env.NAME`` or ``a key of env``."""
    path = field.removeprefix("a key of ")
    top, _, name = path.partition(".")
    typed = _TYPED_AS.get(top.partition("[")[0], f"'{field}'")
    return f"{typed} {name}" if typed == "--env" and name else typed
