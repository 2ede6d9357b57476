"""``user.toml`` and ``.neuro.toml`` (docs/guide/configuration.md): read, checked, merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from neuro.cli.failures import CONFIG, Failure

LOCAL_FILE = ".neuro.toml"
GLOBAL_FILE = "user.toml"

_WRONG_TYPE = re.compile(r"Expected `(?:array|str)\b.* - at `\$\.?(.*?)`")
_NO_SECTION = re.compile(r"Expected `object`[^$]*(?: - at `\$\.?(.*?)`)?$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`(?: - at `\$\.?(.*)`)?")


class Section(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """A table of the files; None: not said."""


class Job(Section, frozen=True):
    """``[job]``."""

    ps_format: str | None = None
    top_format: str | None = None
    life_span: str | None = None


class ProjectJob(Job, frozen=True):
    """``[job]`` of a project's own file."""

    cluster_name: str | None = None
    org_name: str | None = None


class Storage(Section, frozen=True):
    """``[storage]``."""

    cp_exclude: tuple[str, ...] = ()
    cp_exclude_from_files: tuple[str, ...] = (".neuroignore",)


class AliasTable(Section, frozen=True):
    """``[alias.NAME]``: ``cmd`` runs a neuro command, ``exec`` a program."""

    cmd: str | None = None
    exec: str | None = None
    args: str | None = None
    options: tuple[str, ...] = ()
    help: str | None = None

    def __post_init__(self) -> None:
        if (self.cmd is None) == (self.exec is None):
            raise ValueError("it needs either cmd or exec")
        if self.cmd is not None and (self.args is not None or self.options):
            raise ValueError("args and options go with exec, not with cmd")


class Alias(AliasTable, frozen=True, kw_only=True):
    """A command of the person's own."""

    name: str


class UserFile(Section, frozen=True):
    """``user.toml``."""

    job: Job = Job()
    storage: Storage = Storage()
    alias: dict[str, Any] = {}


class ProjectFile(UserFile, frozen=True):
    """``.neuro.toml``, and what both files together say."""

    job: ProjectJob = ProjectJob()


class UserConfig(msgspec.Struct, frozen=True):
    """What both files together say. None: not said."""

    ps_format: str | None = None
    top_format: str | None = None
    life_span: str | None = None
    cluster_name: str | None = None
    cp_exclude: tuple[str, ...] = ()
    cp_exclude_from_files: tuple[str, ...] = (".neuroignore",)
    aliases: Mapping[str, Alias] = {}


def load(folder: Path, start: Path) -> UserConfig:
    """The person's file in ``folder`` and the project's, searched from ``start`` upwards.

    Raises Failure (exit code 70) for unknown sections and keys and wrong types.
    """
    merged: dict[str, dict[str, Any]] = {}
    for path, kind in ((folder / GLOBAL_FILE, UserFile), (_local_file(start), ProjectFile)):
        if path is not None:
            for section, content in _read(path, kind).items():
                merged.setdefault(section, {}).update(content)
    both = msgspec.convert(merged, ProjectFile)
    return UserConfig(
        ps_format=both.job.ps_format,
        top_format=both.job.top_format,
        life_span=both.job.life_span,
        cluster_name=both.job.cluster_name,
        cp_exclude=both.storage.cp_exclude,
        cp_exclude_from_files=both.storage.cp_exclude_from_files,
        aliases={name: _alias(name, values) for name, values in both.alias.items()},
    )


def _local_file(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if (path := folder / LOCAL_FILE).is_file():
            return path
    return None


def _read(path: Path, kind: type[UserFile]) -> dict[str, dict[str, Any]]:
    try:
        # An editor may have put a byte order mark in front.
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError:
        raise Failure(f"{path}: the file is not UTF-8 text: save it as UTF-8.", CONFIG) from None
    import tomllib

    where = ""
    try:
        content = tomllib.loads(text)
        for name, values in msgspec.convert(content, kind).alias.items():
            where = f"alias.{name}"
            _alias(name, values)
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{path}: {error}", CONFIG) from None
    except msgspec.ValidationError as error:
        raise Failure(f"{path}: {_sentence(str(error), where, kind)}", CONFIG) from None
    return content


def _alias(name: str, values: object) -> Alias:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", name):
        raise msgspec.ValidationError("an alias's name has letters, digits and hyphens")
    return Alias(name=name, **msgspec.structs.asdict(msgspec.convert(values, AliasTable)))


def _sentence(error: str, where: str, kind: type[UserFile]) -> str:
    """What msgspec says, in the words of the file. ``where`` is the section of an alias."""
    if found := _UNKNOWN.search(error):
        key, section = found[1], where or found[2]
        if section is None:
            return f"the file has no section '{key}'; known are [job], [storage], [alias.NAME]."
        if kind is UserFile and key in ("cluster-name", "org-name"):
            return f"'{section}.{key}' belongs in a project's {LOCAL_FILE}."
        tables: dict[str, type[Section]] = {"job": Job, "storage": Storage}
        table = AliasTable if where else tables[section]
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(table))
        return f"[{section}] has no parameter '{key}'; known are {known}."
    if found := _NO_SECTION.search(error):
        place = ".".join(part for part in (where, found[1]) if part)
        return f"'{place}' must be a section: write [{place}]."
    if found := _WRONG_TYPE.search(error):
        place = ".".join(part for part in (where, found[1]) if part)
        return f"'{place}' must be {'a list of strings' if 'array' in error else 'a string'}."
    return f"[{where}] {error.partition(' - at ')[0]}." if where else error
