"""Runs made at random: volumes, links, working folders and targets that might lead to the host."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import msgspec

from neuro.engines.base import RunSpec
from tests.engines.harness import MIB, mounted
from tests.security.host import Host, own

_NAMES = ("a", "b", "c", "file", "x y", "-n", "ü", "flip", "in")
_PLACES = (
    *("/v", "/w", "/v/a", "/v/a/b", "/w/in", "/v/flip", "/tmp/t", "/root/r", "/usr/u", "/etc/e"),
    *("/etc/hosts", "/etc", "/usr/bin", "/var/run/x", "/var/run", "/bin", "/lib", "/run/lock/y"),
    *("/opt", "/home/u", "/", "/dev/shm/s", "/dev/x", "/proc/self", "/proc/x", "/sys/x", "/tmp"),
)
_PREFIXES = (
    *("/proc/self/fd/3", "/proc/self/fd/4", "/proc/self/fd/7", "/proc/self/fd/10", "/dev/fd/5"),
    *(
        "/proc/self/root",
        "/proc/1/root",
        "/proc/2/root",
        "/proc/self/cwd",
        "/proc/thread-self/root",
    ),
    *(
        "/oldroot",
        "/..",
        "/../../..",
        "/proc/self/task/2/root",
        "/stage",
        "/base/0",
        "/shown/0",
        "",
    ),
    *("/proc/self/../self/root", "/dev/stdin", "/proc/1/cwd", "/v/a/..", "/w/../..", "//", "/."),
)
# Everything is looked for from wherever the command begins, and from each target.
_SCRIPT = """
exec 2>&1
C={canary}
for d in . ../../../.. {targets} /v /w /proc/1/root; do
    cat "$d/secret" "$d$C/secret" "$d/../secret"
    echo x > "$d/written-{mark}"
    echo x > "$d$C/written-{mark}"
    mkdir "$d$C/made-{mark}" "$d/made-{mark}"
done
ln -sfn "$C" /v/a
ln -sfn "{way}" /v/flip
rm -rf /v/in /w/in
true
"""


@dataclass(frozen=True)
class Case:
    """One run, and the seed that makes it again."""

    seed: int
    spec: RunSpec
    command_inside: tuple[str, ...]  # what is executed besides, or nothing


def case(host: Host, seed: int) -> Case:
    """The run of this seed; its volumes are made."""
    chance = random.Random(seed)
    volumes = [_volume(host, chance) for _ in range(chance.randint(0, 3))]
    mounts = tuple(
        mounted(
            source=str(_source(chance, volume)),
            target=_path(host, chance),
            read_only=chance.random() < 0.3,
        )
        for volume in volumes
    )
    targets = " ".join(_quoted(mount.target) for mount in mounts)
    mark, way = f"{seed:x}", _way(host, chance)
    script = _SCRIPT.format(
        canary=_quoted(str(host.canary)), targets=targets, mark=mark, way=way.replace('"', "")
    )
    made = RunSpec(
        job_id=f"fuzz-{seed:x}",
        image="ubuntu",
        argv=("sh", "-c", script),
        working_dir=_path(host, chance) if chance.random() < 0.8 else None,
        volumes=mounts,
        cpu=1.0,
        memory=256 * MIB,
        privileged=chance.random() < 0.2,
    )
    if chance.random() < 0.15:  # and executes while the job exchanges its working folder
        hold = f"{script}\ncd /; rm -rf {_quoted(made.working_dir or '/w')} 2>/dev/null; sleep 0.2"
        held = msgspec.structs.replace(made, argv=("sh", "-c", hold))
        return Case(seed, held, ("sh", "-c", script))
    return Case(seed, made, ())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _way(host: Host, chance: random.Random) -> str:
    """A path that is the canary's folder, if it leads to the host."""
    rest = chance.choice((str(host.canary), "", "/", f"{host.canary}/folder", "/etc", "/tmp"))
    up = "../" * chance.randint(1, 12) + str(host.canary).lstrip("/")
    return chance.choice((chance.choice(_PREFIXES) + rest, up, str(host.canary), rest or "/"))


def _path(host: Host, chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.25:
        return _way(host, chance) + chance.choice(("", "/made", "/folder/made/deep", "/secret"))
    place = chance.choice(_PLACES)
    rest = [chance.choice(_NAMES) for _ in range(chance.randint(0, 3))]
    return "/".join([place.rstrip("/"), *rest]) or "/"


def _source(chance: random.Random, volume: Path) -> Path:
    """The volume, mostly; else something in it, which may be a link."""
    inside = sorted(volume.iterdir())
    return chance.choice(inside) if inside and chance.random() < 0.2 else volume


def _volume(host: Host, chance: random.Random) -> Path:
    """A folder as earlier jobs may have left it."""
    volume = host.volume()
    folders = [volume]
    for _ in range(chance.randint(0, 6)):
        path = chance.choice(folders) / chance.choice(_NAMES)
        if os.path.lexists(path):
            continue
        kind = chance.random()
        if kind < 0.5:
            path.symlink_to(_way(host, chance) or "/")
        elif kind < 0.8:
            path.mkdir(mode=chance.choice((0o755, 0o700, 0o777)))
            folders.append(path)
        elif kind < 0.95:
            path.write_text("a file")
        else:
            os.mkfifo(path)
        own(path)
    return volume
