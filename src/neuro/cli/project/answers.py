"""The questions of a new project: defaults of its names, and which names are valid."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from neuro.domain.cyrillic import in_latin

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"

_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FOLDERS = ("config", "data", "notebooks", "results")
# A job's name has 40 characters at most; the Makefile puts "tensorboard-" before the slug.
_LONGEST = {"flow": 64, "makefile": 28}


def questions(template: str) -> dict[str, str]:
    """The template's variables in their order, with their defaults as the template has them."""
    text = (TEMPLATES / template / "cookiecutter.json").read_bytes()
    variables: dict[str, str] = json.loads(text)
    return variables


def default(name: str, written: str, answers: Mapping[str, str]) -> str:
    """What is offered for ``name``; ``written`` is the default in the template."""
    return slug_of(answers["project_name"]) if name == "project_slug" else written


def slug_of(name: str) -> str:
    """A project's name in lower-case letters, digits and dashes.

    >>> slug_of("Альфа: модель №2"), slug_of("日本")
    ('alfa-model-no2', 'project')
    """
    name = "".join(in_latin(letter) or letter for letter in name).replace("'", "")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not slug[:1].isalpha():
        slug = f"project-{slug}".rstrip("-")
    return slug


def complaint(template: str, name: str, value: str) -> str | None:
    """What is wrong with an answer, as a sentence; None if it is good."""
    checks = {"project_name": _about_name, "code_directory": _about_code}
    if name == "project_slug":
        return _about_slug(value, _LONGEST[template])
    return checks[name](value)


def _about_name(value: str) -> str | None:
    if not value.strip() or not value.isprintable():
        return "The project's name must be one line of text."
    return None


def _about_slug(value: str, longest: int) -> str | None:
    if not _SLUG.fullmatch(value):
        return (
            f"'{value}' cannot be the name of a project's folder: use lower-case letters,"
            " digits and single dashes, a letter first."
        )
    if len(value) > longest:
        return f"'{value}' is longer than {longest} characters: choose a shorter project_slug."
    return None


def _about_code(value: str) -> str | None:
    import keyword

    if not _MODULE.fullmatch(value) or keyword.iskeyword(value):
        return (
            f"'{value}' cannot be the name of a Python module: use letters, digits and"
            " underscores, a letter first."
        )
    if value.lower() in _FOLDERS:
        return f"'{value}' is another folder of the project: choose a different code_directory."
    return None
