"""A template's folder to a project's folder.

The templates are cookiecutter's, of which this knows one thing: ``{{ cookiecutter.NAME }}`` in
files and in their names. Anything else of that language is refused, so that both make the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = "{{cookiecutter.project_slug}}"
_VARIABLE = re.compile(r"\{\{ ?cookiecutter\.(\w+) ?\}\}")
_OTHER_SYNTAX = re.compile(r"\{\{|\{%|\{#")


def substitute(text: str, values: Mapping[str, str]) -> str:
    """``text`` with the values in it. Raises ValueError for what is no simple substitution."""
    if _OTHER_SYNTAX.search(_VARIABLE.sub("", text)):
        raise ValueError("A template may use {{ cookiecutter.NAME }} and nothing else.")
    for name in _VARIABLE.findall(text):
        if name not in values:
            raise ValueError(f"The template uses cookiecutter.{name}, which has no value.")
    return _VARIABLE.sub(lambda match: values[match[1]], text)


def make_project(template: Path, values: Mapping[str, str], parent: Path) -> Path:
    """Make the project's folder in ``parent``, all of it or nothing.

    Raises FileExistsError where something of that name is there.
    """
    target = parent / values["project_slug"]
    if os.path.lexists(target):
        raise FileExistsError(17, "It is there already", str(target))
    # Beside the target: renaming works within one file system only.
    workshop = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        made = workshop / target.name
        _render_folder(template / ROOT, made, values)
        made.rename(target)
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(workshop)
    return target


def _render_folder(source: Path, target: Path, values: Mapping[str, str]) -> None:
    target.mkdir()
    for entry in sorted(source.iterdir()):
        if entry.name == "__pycache__":
            continue
        place = target / substitute(entry.name, values)
        if entry.is_dir():
            _render_folder(entry, place, values)
        else:
            place.write_bytes(substitute(entry.read_bytes().decode(), values).encode())
            shutil.copymode(entry, place)
