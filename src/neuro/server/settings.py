"""The server's settings: a TOML file in the data folder, every value with its default here."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from neuro.domain.errors import InvalidInput
from neuro.domain.resources import GIB, Amount, Preset
from neuro.domain.sizes import parse_bytes
from neuro.server import durable
from neuro.server.engine_settings import DEFAULT_ENGINE, engine_settings
from neuro.server.settings_places import Misplaced, check_shape, with_line
from neuro.server.settings_rules import check_settings

_LEAST_DISK = 10 * GIB
# Of the data folder, beside the storage: what no user of the storage may see.
OWN_FOLDERS = ("run", "keys", "logs", "engines")
_CLUSTER, _ENGINE = "cluster", "engine"  # files of the data folder


class PresetSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[presets]]``: ``memory`` in bytes, or as text such as "2G" or "512M" (powers of 1024).

    ``disk`` is the same, of private files that a job may have: 0 for no limit, a fifth of the disk
    but 10G or more where nothing is said. ``engine`` runs its jobs, by default the one
    of ``Settings``.
    """

    name: str
    cpu: float
    memory: int | str
    gpu: int = 0
    gpu_model: str | None = None
    credits_per_hour: str = "0"
    preemptible: bool = False
    engine: str | None = None
    disk: int | str | None = None


class CapacitySetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[capacity]``: what jobs may take together; by default all of the machine."""

    cpu: float | None = None
    memory: int | str | None = None


class RetentionSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[retention]`` of what is over.

    Records of jobs and of bakes by age (``days``) and by count (``jobs``, ``bakes``), logs of jobs
    by bytes too, and kept outcomes of tasks by age (``cache_days``).
    """

    days: float = 180.0
    jobs: int = 200_000
    log_bytes: int | str = "20G"
    bakes: int = 10_000
    cache_days: float = 365.0


class BakeSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[bakes]``: how patient the server is with those who drive them, in seconds; how many.

    ``executor_silence`` of a terminal that drives a running bake, ``start`` of one that was
    submitted and never begun, ``grace`` for a terminal to end the jobs of a cancelled bake itself;
    ``restart_pause`` before a main job that died has a successor, up to sixty times longer each
    time; after ``restarts`` (a count) in which no task got on, the bake is given up.
    ``main_jobs`` is how many of these there may be at once, ``main_jobs_per_owner`` how many of one
    person: they take nothing of what presets share out. ``main_jobs_memory`` is what all of them
    together may have, in bytes or as text such as "8G"; None for a quarter of the machine's.
    """

    executor_silence: float = 120.0
    start: float = 600.0
    grace: float = 60.0
    restart_pause: float = 1.0
    restarts: int = 20
    main_jobs: int = 500
    main_jobs_per_owner: int = 100
    main_jobs_memory: int | str | None = None


class NetworkSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[network]`` of jobs.

    ``private`` is whether jobs reach private networks (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16,
    100.64.0.0/10, fc00::/7); ``shared`` gives jobs the machine's own network, without any fence.
    """

    private: bool = True
    shared: bool = False


class SandboxSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sandbox]``: what the fence around jobs lets through.

    ``shared_ids`` lets all jobs be one user of the machine where its file systems cannot map users;
    ``io_uring`` and ``perf`` are system calls that jobs may use.
    """

    shared_ids: bool = False
    io_uring: bool = False
    perf: bool = False


class LimitSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]`` of one person, so that nobody takes the server from the others; and patience.

    ``requests_per_user`` and ``streams_per_user`` in progress at once, ``active_jobs_per_owner``,
    and ``connections_per_address``: beyond it the one that has been idle longest is closed.
    Seconds: ``head`` for the head of a request, ``body_stall`` in which nothing of a body comes,
    ``idle`` of a connection between two requests.
    """

    requests_per_user: int = 128
    streams_per_user: int = 1024
    connections_per_address: int = 1024
    active_jobs_per_owner: int = 5000
    head: float = 30.0
    body_stall: float = 30.0
    idle: float = 75.0


class ServerSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[server]``: this one among several on one PostgreSQL database.

    ``name`` tells it from the others; ``url`` is where they reach it, such as "http://10.0.0.2:8085":
    by default where it listens, which is of use on one machine only.
    """

    name: str | None = None
    url: str | None = None


class StorageSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[storage]``: ``folder`` is where the files of the storage are, an absolute path.

    By default ``storage`` in the data folder. Several servers need one folder that all of them see.
    """

    folder: str | None = None


class MirrorSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[images.mirrors]]``: a public registry whose images come through the platform's own.

    ``registry`` is its name in images, such as "docker.io"; ``host`` is where it answers, if that
    is another host, perhaps with a port. ``user`` and ``password`` are shown to it. ``insecure``
    asks it by http, and lets it be on this machine or in a private network. ``size`` is how much of
    the disk its images may take; 0: any amount.
    """

    registry: str
    host: str | None = None
    user: str | None = None
    password: str | None = None
    insecure: bool = False
    size: int | str = "100G"


class ImageSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[images]`` of the platform's registry.

    ``quota`` is how much those of one person may take, unless theirs is set; 0: any amount.
    """

    quota: int | str = 0
    mirrors: list[MirrorSetting] = []


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``server.toml``. ``engines`` are sections ``[engines.NAME]``: see ``engine_settings``.

    ``engine`` runs the jobs of presets that name none: what is written, or what the data folder
    began with.
    """

    cluster: str = "default"
    engine: str = DEFAULT_ENGINE
    database: str | None = None
    jobs_domain: str | None = None
    stop_grace_seconds: float = 10.0
    log_limit: int | str = "1G"
    presets: list[PresetSetting] = []
    capacity: CapacitySetting = CapacitySetting()
    retention: RetentionSetting = RetentionSetting()
    bakes: BakeSetting = BakeSetting()
    network: NetworkSetting = NetworkSetting()
    sandbox: SandboxSetting = SandboxSetting()
    limits: LimitSetting = LimitSetting()
    server: ServerSetting = ServerSetting()
    storage: StorageSetting = StorageSetting()
    images: ImageSetting = ImageSetting()
    engines: dict[str, dict[str, Any]] = {}


def load_settings(path: Path, engine: str | None = None) -> Settings:
    """Read the settings; an absent file means all defaults.

    ``engine`` is that of a data folder which has none yet, and whose settings name none.

    Raises InvalidInput that names the file and what is wrong in it; another ``cluster`` than that
    of the folder is wrong, too.
    """
    try:
        text = path.read_text("utf-8-sig")  # editors of Windows put a mark before the text
    except FileNotFoundError:
        text = ""
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {_reason(error)}") from None
    try:
        content = {"engine": engine or kept_engine(path.parent), **tomllib.loads(text)}
        check_shape(Settings, content)
        settings = msgspec.convert(content, Settings)
        check_settings(settings, {DEFAULT_ENGINE, settings.engine, *settings.engines})
        engine_settings(settings)
        _check_cluster(path.parent / _CLUSTER, settings.cluster)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, InvalidInput, ValueError) as error:
        raise InvalidInput(f"{path}: {with_line(text, error)}") from None
    except RecursionError:
        raise InvalidInput(f"{path}: its lists or tables are nested too deeply") from None
    return settings


def storage_folder(settings: Settings, data: Path) -> Path:
    """Where the files of the storage are; ``data`` is the data folder."""
    return Path(settings.storage.folder) if settings.storage.folder else data / "storage"


def check_apart(storage: Path, data: Path) -> None:
    """Raise InvalidInput where users of the storage would see what is the server's own."""
    folder = os.path.realpath(storage)
    own = {os.path.realpath(data / name) for name in (*OWN_FOLDERS, ".")}
    within = {os.path.realpath(data / name) for name in OWN_FOLDERS}
    holds_own = any(Path(each).is_relative_to(folder) for each in own)
    if holds_own or any(Path(folder).is_relative_to(each) for each in within):
        raise InvalidInput(
            f"The folder of the storage, {storage}, has in it what is the server's own, or is a"
            f" part of that: give [storage] in server.toml a folder outside of {data}."
        )


def keep_cluster(folder: Path, cluster: str) -> None:
    """Write the cluster's name down at the first start. Raises OSError.

    Jobs, files, permissions and logins carry it: with another, all of them would be out of reach.
    """
    path = folder / _CLUSTER
    if not path.exists():
        draft = folder / f"{_CLUSTER}.new"
        draft.write_text(cluster + "\n", "ascii")
        draft.rename(path)


def written_engine(path: Path) -> str | None:
    """The engine that the file of the settings names, whatever else is in it."""
    try:
        found = tomllib.loads(path.read_text("utf-8-sig")).get("engine")
    except (OSError, ValueError):
        return None  # which is told when the settings are read
    return found if isinstance(found, str) else None


def kept_engine(folder: Path) -> str:
    """The engine with which a data folder began; the embedded one was the only one before."""
    try:
        return (folder / _ENGINE).read_text("ascii").strip()
    except FileNotFoundError:
        return DEFAULT_ENGINE


def is_new(folder: Path) -> bool:
    """Whether no server was ever ready on a data folder."""
    return not (folder / _CLUSTER).exists() and not (folder / _ENGINE).exists()


def keep_engine(folder: Path, engine: str) -> None:
    """Write down the engine of a server that is ready. Raises OSError."""
    path = folder / _ENGINE
    if not path.exists() or kept_engine(folder) != engine:
        durable.write(path, engine)


def _check_cluster(path: Path, cluster: str) -> None:
    try:
        kept = path.read_text("ascii").strip()
    except FileNotFoundError:
        return
    if cluster != kept:
        raise Misplaced(
            ("cluster",),
            f"cluster is '{cluster}', and that of this data folder is '{kept}': its jobs, files,"
            f' permissions and logins carry the name. Write cluster = "{kept}", or use another'
            " data folder (--data-dir)",
        )


def _reason(error: OSError) -> str:
    if isinstance(error, IsADirectoryError):
        return "it is a folder, and must be a text file"
    return error.strerror or type(error).__name__


def disk_for(total: int) -> int:
    """Bytes of private files for a job of a preset that says nothing, on a disk of ``total``.

    A fifth, so that no job fills the disk alone; but enough for the packages of a training job.

    >>> disk_for(1000 * GIB) // GIB, disk_for(20 * GIB) // GIB
    (200, 10)
    """
    return max(_LEAST_DISK, total // 5)


def presets_for(
    settings: Settings, machine: Amount, gpu_model: str | None, disk: int = 0
) -> list[Preset]:
    """The presets of the settings, or those that fit the machine: ``cpu-small`` first.

    ``disk`` is the limit (bytes) of a preset that says nothing of it.
    """
    made = [_preset(setting, settings.engine, disk) for setting in settings.presets]
    return made or [
        msgspec.structs.replace(one, disk=disk, engine=settings.engine)
        for one in _fitting(machine, gpu_model)
    ]


def _fitting(machine: Amount, gpu_model: str | None) -> list[Preset]:
    small = Preset(name="cpu-small", cpu=min(1.0, machine.cpu), memory=min(2 * GIB, machine.memory))
    presets = [small]
    large = Preset(name="cpu-large", cpu=_whole(machine.cpu), memory=_most(machine.memory))
    if large.cpu > small.cpu or large.memory > small.memory:
        presets.append(large)
    if machine.gpu:
        share = machine.gpu
        presets.append(
            Preset(
                name="gpu-small",
                cpu=_whole(machine.cpu / share),
                memory=_most(machine.memory // share),
                gpu=1,
                gpu_model=gpu_model,
            )
        )
        if share > 1:
            presets.append(
                Preset(
                    name="gpu-large",
                    cpu=large.cpu,
                    memory=large.memory,
                    gpu=share,
                    gpu_model=gpu_model,
                )
            )
    return presets


def _whole(cpu: float) -> float:
    return float(int(cpu)) or cpu


def _most(memory: int) -> int:
    # Whole gibibytes, with some left for the machine itself.
    whole = int(memory * 0.9) // GIB * GIB
    return whole or memory


def _preset(setting: PresetSetting, engine: str, disk: int = 0) -> Preset:
    memory = parse_bytes(setting.memory)
    if setting.disk is not None:
        disk = parse_bytes(setting.disk)
    return Preset(
        name=setting.name,
        cpu=setting.cpu,
        memory=memory,
        gpu=setting.gpu,
        gpu_model=setting.gpu_model,
        credits_per_hour=setting.credits_per_hour,
        scheduler_enabled=False,
        preemptible_node=setting.preemptible,
        engine=setting.engine or engine,
        disk=disk,
    )
