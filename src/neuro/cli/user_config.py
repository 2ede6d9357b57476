"""``user.toml`` and ``.neuro.toml`` (docs/guide/configuration.md): read, checked, merged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from neuro.cli.failures import CONFIG, Failure

LOCAL_FILE = ".neuro.toml"
GLOBAL_FILE = "user.toml"


class Alias(NamedTuple):
    """A command of the person's own: ``cmd`` runs a neuro command, ``exec`` a program."""

    name: str
    cmd: str | None = None
    exec: str | None = None
    args: str | None = None
    options: tuple[str, ...] = ()
    help: str | None = None


class UserConfig(NamedTuple):
    """What both files together say. None: not said."""

    ps_format: str | None = None
    top_format: str | None = None
    life_span: str | None = None
    cluster_name: str | None = None
    cp_exclude: tuple[str, ...] = ()
    cp_exclude_from_files: tuple[str, ...] = (".neuroignore",)
    aliases: Mapping[str, Alias] = {}


# Which keys there are, their type, and whether only the project's own file may have them.
_KEYS: dict[str, dict[str, tuple[type, bool]]] = {
    "job": {
        "ps-format": (str, False),
        "top-format": (str, False),
        "life-span": (str, False),
        "cluster-name": (str, True),
        "org-name": (str, True),
    },
    "storage": {"cp-exclude": (list, False), "cp-exclude-from-files": (list, False)},
}
_ALIAS_KEYS: dict[str, type] = {
    "cmd": str,
    "exec": str,
    "args": str,
    "options": list,
    "help": str,
}
_TYPE_NAMES: dict[type, str] = {str: "a string", list: "a list of strings"}


def load(folder: Path, start: Path) -> UserConfig:
    """The person's file in ``folder`` and the project's, searched from ``start`` upwards.

    Raises Failure (exit code 70) for unknown sections and keys and wrong types.
    """
    merged: dict[str, dict[str, Any]] = {}
    for path, is_local in ((folder / GLOBAL_FILE, False), (_local_file(start), True)):
        if path is not None:
            for section, content in _read(path, is_local=is_local).items():
                merged.setdefault(section, {}).update(content)
    return _interpret(merged)


def _local_file(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if (path := folder / LOCAL_FILE).is_file():
            return path
    return None


def _read(path: Path, *, is_local: bool) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except UnicodeDecodeError:
        raise Failure(f"{path}: the file is not UTF-8 text.", CONFIG) from None
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Failure(f"{path}: {error}", CONFIG) from None
    for section, values in content.items():
        if not isinstance(values, dict):
            raise Failure(f"{path}: '{section}' stands outside of a section.", CONFIG)
        if section == "alias":
            for name, alias in values.items():
                _check_alias(path, name, alias)
        else:
            _check_section(path, section, values, is_local=is_local)
    return content


def _check_section(path: Path, section: str, values: dict[str, Any], *, is_local: bool) -> None:
    known = _KEYS.get(section)
    if known is None:
        names = ", ".join(f"[{name}]" for name in (*_KEYS, "alias.NAME"))
        raise Failure(f"{path}: there is no section [{section}]; known are {names}.", CONFIG)
    for key, value in values.items():
        if key not in known:
            raise Failure(
                f"{path}: [{section}] has no parameter '{key}'; known are {', '.join(known)}.",
                CONFIG,
            )
        kind, local_only = known[key]
        if local_only and not is_local:
            raise Failure(
                f"{path}: '{section}.{key}' belongs into a project's {LOCAL_FILE}.", CONFIG
            )
        _check_type(path, f"{section}.{key}", value, kind)


def _check_alias(path: Path, name: str, alias: object) -> None:
    where = f"alias.{name}"
    if not name[:1].isalpha() or not name.isascii() or not name.replace("-", "").isalnum():
        raise Failure(
            f"{path}: '{name}' is no name for an alias: use letters, digits and hyphens.", CONFIG
        )
    if not isinstance(alias, dict):
        raise Failure(f"{path}: write [{where}] with cmd or exec.", CONFIG)
    for key, value in alias.items():
        if key not in _ALIAS_KEYS:
            known = ", ".join(_ALIAS_KEYS)
            raise Failure(f"{path}: [{where}] has no '{key}'; known are {known}.", CONFIG)
        _check_type(path, f"{where}.{key}", value, _ALIAS_KEYS[key])
    if ("cmd" in alias) == ("exec" in alias):
        raise Failure(f"{path}: [{where}] needs either cmd or exec.", CONFIG)
    if "cmd" in alias and ("args" in alias or "options" in alias):
        raise Failure(f"{path}: [{where}]: args and options go with exec, not with cmd.", CONFIG)


def _check_type(path: Path, where: str, value: object, kind: type) -> None:
    fits = isinstance(value, kind)
    if fits and isinstance(value, list):
        fits = all(isinstance(item, str) for item in value)
    if not fits:
        raise Failure(f"{path}: '{where}' must be {_TYPE_NAMES[kind]}.", CONFIG)


def _interpret(merged: Mapping[str, Mapping[str, Any]]) -> UserConfig:
    job, storage = merged.get("job", {}), merged.get("storage", {})
    aliases = {
        name: Alias(
            name=name,
            cmd=values.get("cmd"),
            exec=values.get("exec"),
            args=values.get("args"),
            options=tuple(values.get("options", ())),
            help=values.get("help"),
        )
        for name, values in merged.get("alias", {}).items()
    }
    return UserConfig(
        ps_format=job.get("ps-format"),
        top_format=job.get("top-format"),
        life_span=job.get("life-span"),
        cluster_name=job.get("cluster-name"),
        cp_exclude=tuple(storage.get("cp-exclude", ())),
        cp_exclude_from_files=tuple(storage.get("cp-exclude-from-files", (".neuroignore",))),
        aliases=aliases,
    )
