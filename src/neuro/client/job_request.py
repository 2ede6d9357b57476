"""From the options of ``neuro run`` to a JobRequest: pure functions of values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

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
from neuro.domain.life_spans import check_schedule_timeout, life_span_minutes
from neuro.domain.mounts import mounted_twice
from neuro.domain.names import check_job_name, check_tags
from neuro.domain.uris import complete_uri, full_text

DEFAULT_LIFE_SPAN = "1d"
# The schemes of what can be mounted.
_MOUNTED = ("storage", "disk", "secret")


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
    lines = [line for path in options.env_files for line in env_file_lines(files[path], path)]
    plain, secret = environment([*lines, *options.env], environ, where)
    volumes = parse_volumes(options.volumes, where)
    span, timeout = options.life_span or DEFAULT_LIFE_SPAN, options.schedule_timeout
    return JobRequest(
        cluster_name=where.cluster,
        preset_name=options.preset,
        name=check_job_name(options.name) if options.name else None,
        description=options.description,
        tags=check_tags(list(options.tags)),
        max_run_time_minutes=life_span_minutes(parse_duration(span).total_seconds(), span),
        schedule_timeout=_schedule_timeout(timeout) if timeout else None,
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


def _schedule_timeout(text: str) -> float:
    seconds = parse_duration(text).total_seconds()
    check_schedule_timeout(seconds, text)
    return seconds


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


def env_file_lines(content: str, path: str) -> list[str]:
    """The settings of an env file: its lines but the empty ones and the comments.

    Raises InvalidInput, with the line's number, for a name that has a blank in it.
    """
    settings = []
    for number, raw in enumerate(content.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            _check_variable(line)
        except InvalidInput as error:
            raise InvalidInput(f"{path}, line {number}: {error}") from None
        settings.append(line)
    return settings


def _check_variable(setting: str) -> None:
    name = setting.partition("=")[0]
    if not name or "\0" in setting:
        raise InvalidInput(f"'{setting}' is not a variable: write NAME=VALUE, or NAME to copy it.")
    if any(letter.isspace() for letter in name):
        raise InvalidInput(
            f"'{name}' has a blank in it: write NAME=VALUE, without `export` and without blanks"
            " around the name."
        )


def unset_variables(settings: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """The names that are to be copied from ``environ``, and are not there."""
    return [it for it in settings if "=" not in it and it not in environ]


def environment(
    settings: Iterable[str], environ: Mapping[str, str], where: Where
) -> tuple[dict[str, str], dict[str, str]]:
    """Plain and secret variables of ``NAME=value``, ``NAME=secret:key`` and ``NAME`` (copied).

    A later setting of a name wins over an earlier one.
    """
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    for setting in settings:
        _check_variable(setting)
        name, equals, value = setting.partition("=")
        plain.pop(name, None)
        secret.pop(name, None)
        if not equals:
            plain[name] = environ.get(name, "")
        elif value.startswith("secret:"):
            secret[name] = _full(value, "secret", where)
        else:
            plain[name] = value
    return plain, secret


def _full(text: str, scheme: str, where: Where) -> str:
    return full_text(complete_uri(text, scheme, cluster=where.cluster, user=where.user))


def parse_volumes(texts: Sequence[str], where: Where) -> Volumes:
    """Read the mounts: ``storage:path:/mnt[:ro|rw]``, ``disk:…``, ``secret:key:/file``.

    Without a mode the mount can be written to, as in the reference clients.
    """
    volumes = Volumes([], [], [])
    mounts = []
    for text in texts:
        source, target, read_only = _parts(text)
        mounts.append((source, target))
        scheme = source.partition(":")[0]
        uri = _full(source, scheme, where)
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
    for _, said in mounted_twice(mounts):
        raise InvalidInput(f"{said}. Give each its own path.")
    return volumes


def _meant(text: str, source: str) -> str | None:
    """What to write in place of a source that is not in the storage, where that can be told."""
    scheme, colon, path = source.partition(":")
    if source.startswith(("/", ".", "~")):
        name = source.rstrip("/").rpartition("/")[2].strip(".~") or "data"
        end = text.removeprefix(source)
        return (
            "a job sees folders of the storage, not of this machine. Copy it there with"
            f" `neuro cp -r {source} storage:{name}`, then mount 'storage:{name}{end}'."
        )
    if source in _MOUNTED:
        return f"the path in the job is missing. Write it like {text}:/data."
    if not colon:
        return f"did you mean 'storage:{text}'?" if source else None
    from difflib import get_close_matches

    near = get_close_matches(scheme.lower(), _MOUNTED, 1)
    return f"did you mean '{near[0]}:{path}{text.removeprefix(source)}'?" if near else None


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
    scheme = source.partition(":")[0]
    if ":" not in source or scheme not in _MOUNTED:
        raise InvalidInput(f"Invalid volume '{text}': {_meant(text, source) or f'{form}.'}")
    if not target.startswith("/"):
        raise InvalidInput(
            f"Invalid volume '{text}': '{target}' is not an absolute path in the job; {form}."
        )
    return source, target, read_only
