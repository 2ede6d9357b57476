"""From the options of ``neuro run`` to a JobRequest: pure functions of values."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from neuro.cli.uris import expand_uri
from neuro.domain.durations import parse_duration
from neuro.domain.errors import InvalidInput
from neuro.domain.jobs import (
    DiskVolume,
    HttpPort,
    JobRequest,
    Priority,
    RequestedResources,
    RestartPolicy,
    SecretVolume,
    Volume,
)
from neuro.domain.names import check_job_name, check_tags

DEFAULT_LIFE_SPAN = "1d"


class Where(NamedTuple):
    """What completes short URIs."""

    cluster: str
    user: str


class RunOptions(NamedTuple):
    """The options of ``neuro run`` as they were given."""

    image: str
    command: tuple[str, ...] = ()
    preset: str | None = None
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    http: int = 80
    http_auth: bool | None = None
    entrypoint: str | None = None
    workdir: str | None = None
    tty: bool = False
    stdin: bool | None = None
    extshm: bool = True
    life_span: str | None = None
    schedule_timeout: str | None = None
    restart: str = "never"
    priority: str = "normal"
    pass_config: bool = False
    privileged: bool = False
    wait_for_seat: bool = False


class Volumes(NamedTuple):
    """The mounts of a job, by what is mounted."""

    storage: list[Volume]
    secrets: list[SecretVolume]
    disks: list[DiskVolume]


def job_request(
    options: RunOptions,
    where: Where,
    *,
    environ: Mapping[str, str],
    read_text: Mapping[str, str] | None = None,
) -> JobRequest:
    """The request that the options stand for.

    ``environ`` is the local environment, for ``-e NAME``; ``read_text`` the content of each of
    ``env_files``. Raises InvalidInput.
    """
    files = read_text or {}
    lines = [line for path in options.env_files for line in env_file_lines(files[path])]
    plain, secret = environment([*lines, *options.env], environ, where)
    volumes = parse_volumes(options.volumes, where)
    timeout = options.schedule_timeout
    return JobRequest(
        cluster_name=where.cluster,
        preset_name=options.preset,
        name=check_job_name(options.name) if options.name else None,
        description=options.description,
        tags=check_tags(list(options.tags)),
        max_run_time_minutes=life_span_minutes(options.life_span or DEFAULT_LIFE_SPAN),
        schedule_timeout=parse_duration(timeout).total_seconds() if timeout else None,
        restart_policy=RestartPolicy(options.restart),
        priority=Priority(options.priority),
        pass_config=options.pass_config,
        privileged=options.privileged,
        wait_for_jobs_quota=options.wait_for_seat,
        image=options.image,
        command=join_command(options.command),
        entrypoint=options.entrypoint,
        working_dir=options.workdir,
        env=plain,
        secret_env=secret,
        volumes=volumes.storage,
        secret_volumes=volumes.secrets,
        disk_volumes=volumes.disks,
        http=_http(options),
        tty=options.tty,
        stdin=options.stdin,
        resources=RequestedResources(shm=True) if options.extshm else None,
    )


def _http(options: RunOptions) -> HttpPort | None:
    if options.http == 0:
        return None
    return HttpPort(port=options.http, requires_auth=options.http_auth is not False)


def join_command(words: Sequence[str]) -> str | None:
    """One word is sent as it is, several are quoted for a shell; a leading ``--`` is dropped."""
    if words and words[0] == "--":
        words = words[1:]
    if not words:
        return None
    return words[0] if len(words) == 1 else shlex.join(words)


def life_span_minutes(text: str) -> int | None:
    """Whole minutes, rounded up; None (no limit) for zero."""
    seconds = parse_duration(text).total_seconds()
    return math.ceil(seconds / 60) or None


def env_file_lines(content: str) -> list[str]:
    """The settings of an env file: its lines but the empty ones and the comments."""
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def environment(
    settings: Iterable[str], environ: Mapping[str, str], where: Where
) -> tuple[dict[str, str], dict[str, str]]:
    """Plain and secret variables of ``NAME=value``, ``NAME=secret:key`` and ``NAME`` (copied).

    A later setting of a name wins over an earlier one.
    """
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not name or "\0" in setting:
            raise InvalidInput(f"'{setting}' is no variable: write NAME=VALUE, or NAME to copy it.")
        plain.pop(name, None)
        secret.pop(name, None)
        if not equals:
            plain[name] = environ.get(name, "")
        elif value.startswith("secret:"):
            secret[name] = expand_uri(value, "secret", cluster=where.cluster, user=where.user)
        else:
            plain[name] = value
    return plain, secret


def parse_volumes(texts: Sequence[str], where: Where) -> Volumes:
    """Read the mounts: ``storage:path:/mnt[:ro|rw]``, ``disk:…``, ``secret:key:/file``.

    Without a mode the mount can be written to, as in the reference clients.
    """
    volumes = Volumes([], [], [])
    for text in texts:
        source, target, read_only = _parts(text)
        scheme = source.partition(":")[0]
        uri = expand_uri(source, scheme, cluster=where.cluster, user=where.user)
        if scheme == "storage":
            volumes.storage.append(
                Volume(src_storage_uri=uri, dst_path=target, read_only=bool(read_only))
            )
        elif scheme == "disk":
            volumes.disks.append(
                DiskVolume(src_disk_uri=uri, dst_path=target, read_only=bool(read_only))
            )
        elif read_only is None:
            volumes.secrets.append(SecretVolume(src_secret_uri=uri, dst_path=target))
        else:
            raise InvalidInput(f"'{text}': a secret has no mode; write secret:KEY:/PATH/FILE.")
    return volumes


def _parts(text: str) -> tuple[str, str, bool | None]:
    form = "write it like storage:FOLDER:/PATH:ro (or :rw)"
    if text in ("HOME", "ALL"):
        raise InvalidInput(f"--volume={text} is no longer supported: {form}.")
    source, _, target = text.rpartition(":")
    read_only: bool | None = None
    if target in ("ro", "rw"):
        read_only = target == "ro"
        source, _, target = source.rpartition(":")
    elif source.partition(":")[2] and not target.startswith("/") and ":/" in source:
        raise InvalidInput(f"Wrong mode '{target}' of volume '{text}': it is ro or rw; {form}.")
    scheme, colon, _ = source.partition(":")
    if not colon or scheme not in ("storage", "disk", "secret"):
        raise InvalidInput(f"Invalid volume '{text}': {form}.")
    if not target.startswith("/"):
        raise InvalidInput(
            f"Invalid volume '{text}': '{target}' is no absolute path in the job; {form}."
        )
    return source, target, read_only
