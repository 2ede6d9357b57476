"""From a request to a specification: every rule that a submission must meet. No I/O."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from neuro.domain.errors import InvalidInput, NeverFits, NotSupported, PlatformError
from neuro.domain.images import check_image, in_registry, own_image, with_tag
from neuro.domain.jobs import (
    Container,
    ContainerRequest,
    JobRequest,
    RequestedResources,
    Resources,
)
from neuro.domain.life_spans import LONGEST_MINUTES, check_schedule_timeout
from neuro.domain.mounts import mounted_twice, place_of
from neuro.domain.names import check_job_name, check_known_cluster, check_tags
from neuro.domain.permissions import Action
from neuro.domain.resources import GIB, MIB, Amount, Preset, counted
from neuro.domain.secrets import secret_uri
from neuro.domain.texts import check_text
from neuro.domain.uris import ResourceURI, parse_uri

MAX_TEXT = 128 * 1024  # of a command, and of the environment as a whole: well below the kernel's
MAX_DESCRIPTION = 4096
MAX_VOLUMES = 64
MAX_SECRETS = 64  # in the environment, and as files
MAX_PATH_BYTES = 4096  # of a volume's place, and of the working directory, as the kernel has it

# A control job takes nothing from the capacity, so what it may use is small, and the same for all.
CONTROL_AMOUNT = Amount(cpu=1.0, memory=512 * MIB)
# The system's own folders: what is in them leads to processes, devices and other jobs' files.
_OF_THE_SYSTEM = ("proc", "sys", "dev")
# What a job takes at least, whatever it asks for: some memory of the host is its supervisor's.
LEAST_AMOUNT = Amount(cpu=0.01, memory=16 * MIB)

# Where there is none of these, the words are what is between the blanks.
_QUOTES = re.compile(r"[\"'\\]")
_WORD = re.compile(r"[^ \t\r\n]+")
_FLAT = tuple(
    name for name in ContainerRequest.__struct_fields__ if name in JobRequest.__struct_fields__
)


def container_of(request: JobRequest) -> ContainerRequest:
    """The container's part of a request, whether it came flat or under ``container``."""
    if request.container is not None:
        return request.container
    if request.image is None:
        raise InvalidInput("A job needs an image: give the key 'image'.")
    return ContainerRequest(**{name: getattr(request, name) for name in _FLAT})


def with_own_image(request: JobRequest, registry: str) -> JobRequest:
    """The same; ``registry`` is the host by which the client knows that of the platform.

    A host is only an address of today, and every client may have another one.
    """
    container = request.container
    if container is not None:
        changed = replace(container, image=in_registry(container.image, registry))
        return replace(request, container=changed)
    if request.image is None:
        return request
    return replace(request, image=in_registry(request.image, registry))


def with_full_image(container: ContainerRequest, cluster: str, owner: str) -> ContainerRequest:
    """The same; an image of the platform's registry has its full name. Raises InvalidInput."""
    own = own_image(container.image, cluster=cluster, user=owner)
    return container if own is None else replace(container, image=str(own))


def mistakes(
    request: JobRequest, container: ContainerRequest, cluster: str
) -> Iterator[PlatformError]:
    """Every rule that a request breaks, as InvalidInput or NotSupported."""
    yield from raised(check_known_cluster, request.cluster_name, cluster)
    if request.name is not None:
        yield from raised(check_job_name, request.name)
    yield from raised(check_tags, request.tags)
    if len(request.description or "") > MAX_DESCRIPTION:
        yield InvalidInput(f"A description can be {MAX_DESCRIPTION} characters long.")
    if request.max_run_time_minutes is not None:
        yield from raised(check_minutes, request.max_run_time_minutes)
    if request.schedule_timeout is not None:
        yield from raised(check_schedule_timeout, request.schedule_timeout)
    if request.pass_config and "NEURO_PASSED_CONFIG" in container.env:
        yield InvalidInput("NEURO_PASSED_CONFIG is set by --pass-config: take it out of the env.")
    yield from _mistakes_of_container(container, cluster)


def raised(check: Callable[..., object], *about: object) -> Iterator[PlatformError]:
    """What a check raises, as a value."""
    try:
        check(*about)
    except PlatformError as error:
        yield error


def check_minutes(minutes: int) -> None:
    """Raise InvalidInput for a life span that no job can have."""
    if not 1 <= minutes <= LONGEST_MINUTES:
        raise InvalidInput(
            f"max_run_time_minutes is {minutes}: a job's life span is 1 to {LONGEST_MINUTES:,}"
            " minutes (leave it out for no limit)."
        )


def _mistakes_of_container(container: ContainerRequest, cluster: str) -> Iterator[PlatformError]:
    if own_image(container.image, cluster=cluster, user="") is None:
        yield from raised(check_image, container.image)
    if len(container.command or "") + len(container.entrypoint or "") > MAX_TEXT:
        yield InvalidInput(
            f"The command is over {MAX_TEXT} characters: put it in a file on a volume."
        )
    yield from raised(argv_of, container)
    yield from _mistakes_of_environment(container.env)
    if container.http is not None and not 1 <= container.http.port <= 65535:
        yield InvalidInput(f"HTTP port {container.http.port} is not between 1 and 65535.")
    if container.working_dir is not None:
        yield from raised(_check_working_dir, container.working_dir)
    yield from _mistakes_of_secrets(container, cluster)
    if container.disk_volumes:
        yield NotSupported("This server has no disks yet: mount a storage: volume meanwhile.")
    yield from _mistakes_of_volumes(container, cluster)


def _check_working_dir(path: str) -> None:
    _check_length(path, "The working directory")
    if not path.startswith("/"):
        raise InvalidInput(f"The working directory '{path}' must begin with '/'.")
    if ".." in path.split("/"):
        raise InvalidInput(f"The working directory '{path}' must be written without '..'.")
    check_text(path, "The working directory")
    if (folder := _system_folder(path)) is not None:
        raise InvalidInput(
            f"The working directory '{path}' is in /{folder}, which is the system's: choose another"
            " folder, such as /tmp."
        )


def _check_length(path: str, what: str) -> None:
    if len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        raise InvalidInput(
            f"{what} '{path[:40]}…' is over {MAX_PATH_BYTES} bytes long: choose a shorter one."
        )


def _system_folder(path: str) -> str | None:
    """The system's folder that an absolute path without '..' is, or is in."""
    first = place_of(path).split("/")[1]
    return first if first in _OF_THE_SYSTEM else None


def _mistakes_of_environment(env: Mapping[str, str]) -> Iterator[PlatformError]:
    if sum(len(name) + len(value) + 2 for name, value in env.items()) > MAX_TEXT:
        yield InvalidInput(f"The environment is over {MAX_TEXT} characters.")
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            yield InvalidInput(f"'{name[:80]}' cannot be an environment variable.")


def _mistakes_of_secrets(container: ContainerRequest, cluster: str) -> Iterator[PlatformError]:
    if len(container.secret_env) > MAX_SECRETS or len(container.secret_volumes) > MAX_SECRETS:
        yield InvalidInput(
            f"A job can have {MAX_SECRETS} secrets in its environment, and as many as files."
        )
        return
    yield from _mistakes_of_environment(container.secret_env)
    for name in container.secret_env.keys() & container.env.keys():
        yield InvalidInput(f"The variable '{name[:80]}' is given twice: as a secret and without.")
    for text in container.secret_env.values():
        yield from raised(secret_uri, text, cluster)
    for volume in container.secret_volumes:
        yield from raised(secret_uri, volume.src_secret_uri, cluster)
        yield from raised(_check_mount_path, volume.dst_path)


def secrets_of(container: ContainerRequest | Container, cluster: str) -> list[ResourceURI]:
    """The secrets that a container uses, each once. Raises InvalidInput."""
    texts = [
        *container.secret_env.values(),
        *(volume.src_secret_uri for volume in container.secret_volumes),
    ]
    return list(dict.fromkeys(secret_uri(text, cluster) for text in texts))


def _mistakes_of_volumes(container: ContainerRequest, cluster: str) -> Iterator[PlatformError]:
    if len(container.volumes) > MAX_VOLUMES:
        yield InvalidInput(f"A job can have {MAX_VOLUMES} volumes at most.")
        return
    mounts = [(it.src_secret_uri, it.dst_path) for it in container.secret_volumes]
    for volume in container.volumes:
        wrong = list(raised(_check_mount_path, volume.dst_path))
        yield from wrong
        yield from raised(storage_uri, volume.src_storage_uri, cluster)
        if not wrong:
            mounts.append((volume.src_storage_uri, volume.dst_path))
    for _, said in mounted_twice(mounts):
        yield InvalidInput(f"{said}. Give each its own path.")


def _check_mount_path(target: str) -> None:
    _check_length(target, "The mount path")
    check_text(target, "The mount path")
    if not target.startswith("/") or ".." in target.split("/"):
        raise InvalidInput(
            f"The mount path '{target}' must be absolute, without '..' (like /project/data)."
        )
    if place_of(target) == "/":
        raise InvalidInput("A volume cannot be mounted at '/': choose a folder below it.")
    if (folder := _system_folder(target)) is not None:
        raise InvalidInput(
            f"A volume cannot be mounted at '{target}': /{folder} is the system's. Choose"
            " another folder."
        )


def storage_uri(text: str, cluster: str) -> ResourceURI:
    """The parsed URI of a volume's source. Raises InvalidInput."""
    uri = parse_uri(text)
    if uri.scheme != "storage":
        raise InvalidInput(f"A volume comes from storage:, not from '{text}'.")
    if uri.host != cluster:
        raise InvalidInput(f"'{text}' is not in cluster '{cluster}', where the job would run.")
    return uri


def needed_permissions(
    request: JobRequest, container: ContainerRequest, cluster: str, owner: str
) -> Iterator[tuple[ResourceURI, Action]]:
    """What a caller must be allowed in order to submit this, as far as it can be understood."""
    yield ResourceURI("job", cluster, (owner,)), Action.WRITE
    if request.privileged:
        yield ResourceURI("cluster", cluster), Action.MANAGE
    if (own := own_image(container.image, cluster=cluster, user=owner)) is not None:
        yield own.uri, Action.READ
    for volume in container.volumes[:MAX_VOLUMES]:
        try:
            uri = storage_uri(volume.src_storage_uri, cluster)
        except InvalidInput:
            continue  # one of the mistakes
        yield uri, Action.READ if volume.read_only else Action.WRITE


def entrypoint_and_argv(
    container: ContainerRequest | Container,
) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The words to execute, as engines take them; no shell sees them.

    An empty entrypoint takes the image's own away from a command; without one it says nothing.
    """
    try:
        entrypoint = None if container.entrypoint is None else _words(container.entrypoint)
        argv = _words(container.command or "")
    except ValueError as error:
        raise InvalidInput(f"invalid command format: {error} (check the quotes)") from None
    given = None if entrypoint is None or not (entrypoint or argv) else tuple(entrypoint)
    return given, tuple(argv)


def argv_of(container: ContainerRequest | Container) -> tuple[str, ...]:
    """All words that were given. Empty for the image's own default."""
    entrypoint, argv = entrypoint_and_argv(container)
    return (*(entrypoint or ()), *argv)


def _words(text: str) -> list[str]:
    """``shlex.split``, which goes letter by letter: it takes longer than all other checks."""
    return shlex.split(text) if _QUOTES.search(text) else _WORD.findall(text)


def choose_preset(
    request: JobRequest, resources: RequestedResources | None, presets: list[Preset]
) -> Preset | None:
    """The preset asked for, the first for none, or None for explicit resources.

    Raises InvalidInput for an unknown preset (naming the known ones) or for both at once.
    """
    asked = resources or RequestedResources()
    explicit = any(
        value is not None for value in (asked.cpu, asked.memory, asked.memory_mb, asked.gpu)
    )
    if request.preset_name is None:
        if explicit:
            return None
        if not presets:
            raise InvalidInput("This server has no presets: ask its admin to add one.")
        return presets[0]
    if explicit:
        raise InvalidInput("Give a preset or explicit resources, not both.")
    for preset in presets:
        if preset.name == request.preset_name:
            return preset
    known = ", ".join(preset.name for preset in presets)
    raise InvalidInput(f"Preset '{request.preset_name}' is unknown; known are: {known}.")


def explicit_amount(asked: RequestedResources) -> Amount:
    """The amount that a request without a preset spells out; no job has less than LEAST_AMOUNT.

    Raises InvalidInput.
    """
    memory = asked.memory if asked.memory is not None else (asked.memory_mb or 0) * MIB
    amount = Amount(cpu=asked.cpu or 0.0, memory=memory, gpu=asked.nvidia_gpu or asked.gpu or 0)
    if not 0 < amount.cpu < 1e6 or not MIB <= amount.memory < 1 << 60 or amount.gpu < 0:
        raise InvalidInput("Resources need a 'cpu' above 0 and a 'memory' of 1 MiB or more.")
    return Amount(
        cpu=max(amount.cpu, LEAST_AMOUNT.cpu),
        memory=max(amount.memory, LEAST_AMOUNT.memory),
        gpu=amount.gpu,
    )


def check_fits(amount: Amount, capacity: Amount, what: str) -> None:
    """Raise NeverFits, with the numbers, for what this installation can never run."""
    if (short := shortage(amount, capacity)) is not None:
        raise NeverFits(f"{what} can never run here: it needs {short}. Choose a smaller preset.")


def shortage(amount: Amount, capacity: Amount) -> str | None:
    """What of ``amount`` an installation never has, in words; None where it has all of it."""
    if amount.fits(capacity):
        return None
    short = []
    if amount.cpu > capacity.cpu + 1e-3:
        short.append(f"{counted(amount.cpu, 'CPU')} (this machine has {capacity.cpu:g})")
    if amount.memory > capacity.memory:
        short.append(
            f"{amount.memory / GIB:.1f} GiB of memory (this machine has"
            f" {capacity.memory / GIB:.1f})"
        )
    if amount.gpu > capacity.gpu:
        short.append(f"{counted(amount.gpu, 'GPU')} (this machine has {capacity.gpu})")
    return " and ".join(short)


def wire_container(container: ContainerRequest, amount: Amount, gpu_model: str | None) -> Container:
    """The container as answers show it."""
    shm = container.resources.shm if container.resources is not None else False
    return Container(
        image=with_tag(container.image),
        entrypoint=container.entrypoint,
        command=container.command,
        working_dir=container.working_dir,
        env=container.env,
        volumes=container.volumes,
        secret_env=container.secret_env,
        secret_volumes=container.secret_volumes,
        http=container.http,
        tty=container.tty,
        stdin=container.stdin,
        resources=Resources(
            cpu=amount.cpu,
            memory=amount.memory,
            memory_mb=amount.memory // MIB,
            shm=shm,
            gpu=amount.gpu or None,
            nvidia_gpu=amount.gpu or None,
            gpu_model=gpu_model,
        ),
    )
