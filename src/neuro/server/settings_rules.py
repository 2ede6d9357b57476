"""What the values of ``server.toml`` may be, beyond their types: each error names the key.

Every number and every size has its range here, and those of an engine in its kind; whatever has
none is a text or a switch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import msgspec

from neuro.domain.names import check_cluster_name
from neuro.domain.ranges import CORES, PRESET_CPU, PRESET_GPU, Range, Size
from neuro.domain.resources import MIB
from neuro.domain.sizes import check_size
from neuro.server.settings_places import Key, Misplaced, placed, spelled

if TYPE_CHECKING:
    from neuro.server.settings import MirrorSetting, PresetSetting, ServerSetting, Settings

_DAY = 86_400
_CENTURY = 36_500  # days
# A host's name, with a port where the addresses of jobs need one.
_HOST = re.compile(r"(?=.{1,200}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_ADDRESS = re.compile(r"https?://[^\s/?#@]+")
# Of an engine's name, which the server's becomes a part of.
_SERVER = re.compile(r"(?=.{1,20}$)[a-z](-?[a-z0-9])*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


_COUNT = Range("a count", 0, 10**12)
_SECONDS = Range("seconds", 0, _CENTURY * _DAY)
_RULES: Mapping[str, Range | Size] = {
    "stop_grace_seconds": Range("seconds", 0, _DAY),
    "capacity.cpu": CORES,
    "presets.cpu": PRESET_CPU,
    "presets.gpu": PRESET_GPU,
    **dict.fromkeys(("retention.days", "retention.cache_days"), Range("days", 0, _CENTURY)),
    **dict.fromkeys(
        ("bakes.executor_silence", "bakes.start", "bakes.grace", "bakes.restart_pause"), _SECONDS
    ),
    **dict.fromkeys(
        (
            "retention.jobs",
            "retention.bakes",
            "bakes.restarts",
            "bakes.main_jobs",
            "bakes.main_jobs_per_owner",
            "limits.active_jobs_per_owner",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        ("limits.requests_per_user", "limits.streams_per_user", "limits.connections_per_address"),
        Range("a count", 1, 10**6),
    ),
    **dict.fromkeys(
        ("limits.head", "limits.body_stall", "limits.idle"), Range("seconds", 0.1, _DAY)
    ),
    "log_limit": Size(),
    "capacity.memory": Size(),
    "bakes.main_jobs_memory": Size(512 * MIB),  # one main job may have as much
    "retention.log_bytes": Size(least=0),
    "images.quota": Size(or_zero=True),
    "images.mirrors.size": Size(or_zero=True),
    "presets.memory": Size(),
    "presets.disk": Size(or_zero=True),
}


def check_settings(settings: Settings, engines: Collection[str]) -> None:
    """Raise Misplaced for the first value that cannot be; ``engines`` are those there are."""
    with placed(("cluster",)):
        check_cluster_name(settings.cluster)
    check_values(settings)
    names: set[str] = set()
    for number, preset in enumerate(settings.presets):
        _check_preset(preset, ("presets", number), names, engines)
        names.add(preset.name)
    _check_database(settings.database)
    _check_domain(settings.jobs_domain)
    _check_server(settings.server)
    _check_folder(settings.storage.folder)
    _check_mirrors(settings.images.mirrors)


def check_values(
    struct: msgspec.Struct, rules: Mapping[str, Range | Size] = _RULES, at: Key = ()
) -> None:
    """Raise Misplaced for the first number or size of ``struct`` that cannot be.

    ``rules`` has one for each, by its key; ``at`` is where they are.
    """
    for key, name, value in _values(struct, at):
        rule = rules.get(name)
        if isinstance(rule, Size) and not isinstance(value, float):
            with placed(key):
                check_size(spelled(key), value, rule.least, or_zero=rule.or_zero)
        elif not isinstance(value, str):
            assert isinstance(rule, Range), f"{name} has no range"
            if not rule.least <= value <= rule.most:  # this is so for what is no number, too
                raise Misplaced(key, f"{spelled(key)} is {value}: give {rule}")


def _values(
    struct: msgspec.Struct, at: Key, section: str = ""
) -> Iterator[tuple[Key, str, int | float | str]]:
    """Where every value is, what its rule is called (items of lists have one) and the value."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        key, rule = (*at, name), f"{section}.{name}" if section else name
        if isinstance(value, msgspec.Struct):
            yield from _values(value, key, rule)
        elif isinstance(value, list):
            for number, each in enumerate(value):
                yield from _values(each, (*key, number), rule)
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            yield key, rule, value


def _check_preset(
    preset: PresetSetting, at: Key, names: Collection[str], engines: Collection[str]
) -> None:
    if not 1 <= len(preset.name) <= 64 or not preset.name.isprintable():
        raise Misplaced(
            (*at, "name"),
            f"{spelled(at)}: {preset.name[:80]!r} cannot be a preset's name: use 1 to 64"
            " characters, without control characters",
        )
    if preset.name in names:
        raise Misplaced(
            (*at, "name"),
            f"{spelled(at)}: another preset is called '{preset.name}' too: give each a name of its"
            " own",
        )
    if preset.engine is not None and preset.engine not in engines:
        raise Misplaced(
            (*at, "engine"),
            f"preset '{preset.name}': engine is '{preset.engine}', which this server does not have:"
            f" it must be {' or '.join(sorted(engines))}",
        )
    try:
        price = Decimal(preset.credits_per_hour)
    except InvalidOperation:
        price = Decimal("nan")
    if not price.is_finite() or price < 0:
        raise Misplaced(
            (*at, "credits_per_hour"),
            f"preset '{preset.name}': credits_per_hour is '{preset.credits_per_hour}': it must be a"
            ' number in quotes, such as "0.5"',
        )


def _check_database(url: str | None) -> None:
    if url is not None and not url.startswith(
        ("sqlite:///", "postgres://", "postgresql://", "postgresql+psycopg://")
    ):
        raise Misplaced(
            ("database",),
            f"database begins with '{url.partition(':')[0][:40]}': it must be a URL such as"
            " postgresql://user@host/name or sqlite:///PATH",
        )


def _check_domain(domain: str | None) -> None:
    if domain is None:
        return
    host, colon, port = domain.partition(":")
    is_port = _PORT.fullmatch(port) is not None and int(port) <= 65535
    if _HOST.fullmatch(host.lower()) is None or (colon and not is_port):
        raise Misplaced(
            ("jobs_domain",),
            f"jobs_domain is {domain[:80]!r}: it must be a host name, such as example.org, and"
            " :PORT after it where one is needed",
        )


def _check_server(server: ServerSetting) -> None:
    if server.name is not None and _SERVER.fullmatch(server.name) is None:
        raise Misplaced(
            ("server", "name"),
            f"server.name is {server.name[:80]!r}: it must be 1 to 20 lower-case letters, digits"
            " and hyphens, and begin with a letter",
        )
    if server.url is not None and _ADDRESS.fullmatch(server.url.removesuffix("/")) is None:
        raise Misplaced(
            ("server", "url"),
            f"server.url is {server.url[:80]!r}: it must be where other servers reach this one,"
            ' such as "http://10.0.0.2:8085", without a path',
        )


def _check_mirrors(mirrors: Sequence[MirrorSetting]) -> None:
    names: set[str] = set()
    for number, mirror in enumerate(mirrors):
        at: Key = ("images", "mirrors", number)
        # With a dot in it, it is nobody's name.
        if _HOST.fullmatch(mirror.registry) is None or "." not in mirror.registry:
            raise Misplaced(
                (*at, "registry"),
                f"{spelled(at)}: registry is {mirror.registry[:80]!r}: it must be a name as images"
                ' begin with, such as "docker.io", without a port: where it answers is `host`',
            )
        if mirror.registry in names:
            raise Misplaced(
                (*at, "registry"),
                f"{spelled(at)}: {mirror.registry} is mirrored already: remove one",
            )
        names.add(mirror.registry)
        host, colon, port = (mirror.host or mirror.registry).partition(":")
        if _HOST.fullmatch(host) is None or (colon and _PORT.fullmatch(port) is None):
            raise Misplaced(
                (*at, "host"),
                f"{spelled(at)}: host is {mirror.host!r}: it must be a host name, and :PORT after"
                " it where one is needed",
            )
        if (mirror.user is None) != (mirror.password is None):
            raise Misplaced(at, f"{spelled(at)} needs both 'user' and 'password', or none of them")


def _check_folder(folder: str | None) -> None:
    if folder is not None and not folder.startswith("/"):
        raise Misplaced(
            ("storage", "folder"),
            f"storage.folder is {folder[:80]!r}: it must be an absolute path, such as"
            ' "/srv/neuro/storage"',
        )
