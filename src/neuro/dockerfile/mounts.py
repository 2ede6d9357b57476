"""``RUN --mount``: what its fields say, once the variables in them are expanded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from neuro.dockerfile.paths import base, clean, join
from neuro.dockerfile.values import boolean, integer, size
from neuro.domain.problems import nearest

MountKind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]
Origin = int | Literal["context", "empty"]
"""Where files come from: a step by its number, the build's context, or nowhere."""

_SHORT = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SHORT |= {"rw": "readwrite"}
_FIELDS = (
    *("type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required"),
    *("size", "mode", "uid", "gid", "env"),
)
_NUMBER_LIMIT = 2**32


class InvalidMount(ValueError):
    """What is wrong with a mount, and what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount of a RUN. ``mode``, ``uid`` and ``gid`` are those of a cache's folder, or a file's.

    ``target`` is empty for a secret that is a variable only.
    """

    kind: MountKind
    target: str
    origin: Origin = "empty"
    source: str = "/"
    read_only: bool = False
    size: int = 0
    id: str = ""
    sharing: Sharing = "shared"
    required: bool = False
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def read_mount(
    fields: tuple[str, ...],
    expand: Callable[[str], str],
    folder: str,
    origin: Callable[[str], Origin],
) -> Mount:
    """A mount of its fields. ``origin`` knows what a name behind ``from=`` is.

    Raises InvalidMount.
    """
    found: dict[str, str] = {}
    kind: MountKind = "bind"
    for one in fields:
        key, equals, value = one.partition("=")
        key = _SHORT.get(key.lower(), key.lower())
        if equals:
            value = expand(value)
        elif key in ("readonly", "readwrite", "required"):
            value = "true"
        else:
            raise InvalidMount(f"'{one}' of --mount has no value.", "Write key=value.")
        if key == "type":
            kind = _kind(value)
        elif key == "required" and kind not in ("secret", "ssh"):
            raise InvalidMount(f"A mount of type {kind} cannot be required.", "Write type= first.")
        elif key == "size" and kind != "tmpfs":
            raise InvalidMount(f"A mount of type {kind} has no size.", "Write type=tmpfs first.")
        elif key not in _FIELDS:
            raise InvalidMount(f"--mount has no field '{key}'.", nearest(key, _FIELDS))
        if key in ("readonly", "readwrite"):
            found.pop("readonly", None)
            found.pop("readwrite", None)
        found[key] = value
    return _made(kind, found, folder, origin)


def with_agents(mounts: tuple[Mount, ...]) -> tuple[tuple[Mount, ...], dict[str, str]]:
    """The mounts, with a place for each agent, and the variable that names the first one."""
    placed: list[Mount] = []
    env: dict[str, str] = {}
    agents = 0
    for mount in mounts:
        if mount.kind == "ssh":
            target = mount.target or f"/run/buildkit/ssh_agent.{agents}"
            mount = msgspec.structs.replace(mount, target=target)
            agents += 1
            env.setdefault("SSH_AUTH_SOCK", target)
        placed.append(mount)
    return tuple(placed), env


def _made(
    kind: MountKind, found: dict[str, str], folder: str, origin: Callable[[str], Origin]
) -> Mount:
    mode, uid, gid = _mode(found), _identity(found, "uid"), _identity(found, "gid")
    if kind in ("bind", "tmpfs"):
        for key in ("mode", "uid", "gid"):
            if key in found:
                raise InvalidMount(f"A mount of type {kind} has no {key}.", f"Remove {key}=.")
    read_only = _flag(found, "readonly", kind not in ("cache", "tmpfs"))
    if "readwrite" in found:
        read_only = not _flag(found, "readwrite", True)
    required = _flag(found, "required", False)
    sharing = _sharing(kind, found)
    if kind == "secret":
        name, target = _secret(found)
        return Mount(
            kind,
            target,
            id=name,
            required=required,
            env=found.get("env"),
            mode=mode,
            uid=uid,
            gid=gid,
            read_only=read_only,
        )
    if kind == "ssh":
        if found.get("source"):
            raise InvalidMount("A mount of type ssh has no source.", "Write id= instead.")
        return Mount(
            kind,
            found.get("target", ""),
            id=found.get("id") or "default",
            required=required,
            mode=mode,
            uid=uid,
            gid=gid,
            read_only=read_only,
        )
    target = found.get("target", "")
    target = target if target.startswith("/") else join("/", folder, target)
    if target == "/":
        raise InvalidMount("A mount cannot be at '/'.", "Write target=/FOLDER.")
    amount = size(found["size"]) if "size" in found else 0
    if amount is None:
        raise InvalidMount(f"'{found['size']}' is not a size.", "Write 64m or 1g.")
    whence: Origin = "empty"
    if kind != "tmpfs" and (kind == "bind" or found.get("from")):
        whence = origin(found["from"]) if found.get("from") else "context"
    return Mount(
        kind,
        target,
        whence,
        join("/", found.get("source", "")),
        read_only,
        amount,
        (found.get("id") or clean(found.get("target", ""))) if kind == "cache" else "",
        sharing,
        mode=mode,
        uid=uid,
        gid=gid,
    )


def _kind(value: str) -> MountKind:
    for kind in get_args(MountKind):
        if value.lower() == kind:
            return kind  # type: ignore[no-any-return]
    kinds = get_args(MountKind)
    hint = nearest(value, kinds) or f"There are {', '.join(kinds)}."
    raise InvalidMount(f"'{value}' is not a type of mount.", hint)


def _sharing(kind: MountKind, found: dict[str, str]) -> Sharing:
    if "sharing" not in found:
        return "shared"
    for sharing in get_args(Sharing):
        if found["sharing"].lower() == sharing:
            if kind != "cache":
                raise InvalidMount(f"A mount of type {kind} is not shared.", "Remove sharing=.")
            return sharing  # type: ignore[no-any-return]
    raise InvalidMount(
        f"'{found['sharing']}' is not a way to share.", "There are shared, private and locked."
    )


def _secret(found: dict[str, str]) -> tuple[str, str]:
    if found.get("from"):
        raise InvalidMount("A secret comes from nowhere.", "Remove from=.")
    if found.get("source") and found.get("id"):
        raise InvalidMount("A secret has both source= and id=.", "Keep id=.")
    target = found.get("target", "")
    name = found.get("source") or found.get("id") or base(target)
    if not name or not (target or found.get("source") or found.get("id")):
        raise InvalidMount("A secret has no name.", "Write id=NAME.")
    if not target and "env" not in found:
        target = f"/run/secrets/{base(name)}"
    return name, target


def _flag(found: dict[str, str], key: str, default: bool) -> bool:
    if key not in found:
        return default
    value = boolean(found[key])
    if value is None:
        raise InvalidMount(f"{key}= is either true or false, not '{found[key]}'.")
    return value


def _mode(found: dict[str, str]) -> int | None:
    if "mode" not in found:
        return None
    text = found["mode"]
    if not text or set(text) - set("01234567") or len(text) > 10:
        raise InvalidMount(f"'{text}' is not a mode.", "Write octal digits, such as 0600.")
    return int(text, 8)


def _identity(found: dict[str, str], key: str) -> int | None:
    if key not in found:
        return None
    value = integer(found[key])
    if value is None or not 0 <= value < _NUMBER_LIMIT:
        raise InvalidMount(f"'{found[key]}' is not a {key}.", "Write a number.")
    return value
