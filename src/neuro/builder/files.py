"""The Dockerfile and the context, as they lie on the disk."""

from __future__ import annotations

import os
import stat

from neuro.builder.faults import BuildFault
from neuro.builder.sources import Sources
from neuro.builder.views import Context
from neuro.dockerfile.ignore import IgnoreMatcher, read_patterns
from neuro.dockerfile.ignore_files import names_of_ignore_file
from neuro.dockerfile.parser import MAX_BYTES, parse
from neuro.dockerfile.tree import Dockerfile
from neuro.domain.problems import closest

_DEFAULT = "Dockerfile"


def context_folder(path: str, sources: Sources) -> str:
    """The context's real place. Raises BuildFault where it is not a folder of ``sources``."""
    real = sources.real(path)
    if not os.path.isdir(real):
        raise BuildFault(
            f"The context {path} is not a folder.", "Mount it as a volume: --volume=URI:PATH:ro."
        )
    return real


def dockerfile(folder: str, name: str, sources: Sources) -> tuple[Dockerfile, str]:
    """The Dockerfile, parsed, and its path. Raises BuildFault, DockerfileError."""
    path = find_dockerfile(folder, name, sources)
    content = _read(path, sources)
    assert content is not None
    return parse(content, os.path.relpath(path, folder) if _is_in(path, folder) else path), path


def find_dockerfile(folder: str, name: str, sources: Sources) -> str:
    """Where the Dockerfile is: in the context, or else in ``sources``. Raises BuildFault."""
    for path in (os.path.join(folder, name or _DEFAULT), os.path.abspath(name or _DEFAULT)):
        if _read(path, sources, peek=True) is not None:
            return path
    near = closest(name or _DEFAULT, os.listdir(folder))
    hint = f"Did you mean --dockerfile={near}?" if near else "Write --dockerfile=PATH."
    raise BuildFault(f"There is no {name or _DEFAULT} in the context.", hint)


def context(
    folder: str, dockerfile_path: str, sources: Sources, *, is_stored: bool = False
) -> Context:
    """The context, less what its ignore file names. Raises BuildFault, DockerfileError, OSError.

    ``is_stored`` as in ``views.Found``.
    """
    beside, within = names_of_ignore_file(dockerfile_path)
    for path in (beside, os.path.join(folder, within)):
        content = _read(path, sources)
        if content is not None:
            text = content.decode("utf-8", "replace")
            patterns = read_patterns(text, os.path.basename(path))
            return Context(folder, IgnoreMatcher(patterns), is_stored=is_stored)
    return Context(folder, IgnoreMatcher(()), is_stored=is_stored)


def write(path: str, text: str) -> None:
    """Write a small file. Raises BuildFault."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BuildFault(f"{path} cannot be written: {error.strerror}.") from None


def _read(path: str, sources: Sources, *, peek: bool = False) -> bytes | None:
    """A plain file's bytes, one more than a Dockerfile may have; None where it is not one.

    Raises BuildFault where it is not one of ``sources``.
    """
    try:
        fd = sources.open(path)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        if peek:
            return b""
        with os.fdopen(os.dup(fd), "rb") as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(fd)


def _is_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")
