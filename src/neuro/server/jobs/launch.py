"""From a job's record to what an engine is told to run: volumes, environment, the passed login."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from neuro.domain.errors import InvalidInput, NotFound
from neuro.domain.images import (
    BUILDER_IMAGE,
    in_registry,
    is_builder_image,
    is_executor_image,
    is_host_image,
    own_image,
)
from neuro.domain.jobs import Container, ContainerRequest, Volume
from neuro.domain.printable import printable
from neuro.domain.uris import ResourceURI
from neuro.engines import base
from neuro.engines.base import PullCredentials, RunSpec
from neuro.engines.images.references import mirrored
from neuro.server.access.people import person_of
from neuro.server.jobs import builders
from neuro.server.jobs.job_secrets import SecretValues
from neuro.server.jobs.record import JobRecord, host_label
from neuro.server.jobs.specification import entrypoint_and_argv, storage_uri

T = TypeVar("T")

PASSED_CONFIG = "NEURO_PASSED_CONFIG"
_DOMAIN = "platform-jobs"
_NAMED, _LONGEST_NAME = 3, 200  # of the folders that a notice tells of; letters


class Files(Protocol):
    """The part of the storage that jobs need."""

    def host_path(self, uri: ResourceURI, *, create: bool) -> Path:
        """The folder or file behind a storage URI. Raises NotFound, InvalidInput."""
        ...

    async def in_turn_of(self, person: str, work: Callable[[], T]) -> T:
        """Do blocking work in a thread, when it is the person's turn."""
        ...


class Launcher:
    """Makes run specifications."""

    def __init__(
        self,
        cluster: str,
        files: Files,
        make_token: Callable[[JobRecord], Awaitable[str]],
        api_url: Callable[[str], str],
        commands: str,
        disk_of: Callable[[str | None], int] = lambda preset: 0,
        *,
        image_token: Callable[[str, ResourceURI], str],
        registry: str,
        secrets: Callable[[JobRecord], Awaitable[SecretValues]],
        mirrors: Collection[str] = (),
        build_daemon: Callable[[], str] = lambda: "",
    ) -> None:
        """``make_token`` issues a token for a job; ``api_url(engine)`` is what jobs call.

        ``commands`` is the folder of the platform's own commands. Jobs of the embedded engine see
        it, with all that belongs to it, so that the executor's image needs nothing but the name.
        ``disk_of(preset)`` is how many bytes of private files a job may have, 0 for no limit.
        ``image_token(user, image)`` allows to pull an image of the platform's, from the host
        ``registry``, which has those of the registries ``mirrors`` as well. ``secrets(record)`` are
        the values of those that a job uses, as they are now. ``build_daemon()`` is the socket of
        the daemon that builds images, empty where the embedded engine does.
        """
        self._cluster = cluster
        self._files = files
        self._make_token = make_token
        self._api_url = api_url
        self._commands = commands
        self._disk_of = disk_of
        self._image_token = image_token
        self._registry = registry
        self._mirrors = mirrors
        self._secrets = secrets
        self._build_daemon = build_daemon

    async def check_volumes(self, owner: str, container: ContainerRequest) -> list[str]:
        """Make the folders of read-write volumes that are missing; a sentence about each.

        Raises InvalidInput for a read-only volume that is not there, and for one that has no place
        in another one.
        """
        if not container.volumes and not container.secret_volumes:
            return []
        return await self._files.in_turn_of(owner, lambda: self._check_volumes(container))

    def _check_volumes(self, container: ContainerRequest) -> list[str]:
        if is_builder_image(container.image):
            builders.check_places([*container.volumes, *container.secret_volumes])
        made = []
        for volume in container.volumes:
            uri = storage_uri(volume.src_storage_uri, self._cluster)
            if not volume.read_only and not self._is_there(uri):
                made.append(printable(str(uri)))
            self._source(volume.src_storage_uri, create=not volume.read_only)
        for volume, outer in _nested(container.volumes):
            if outer.read_only:
                self._check_place(volume, outer)
        return _made(made)

    def _is_there(self, uri: ResourceURI) -> bool:
        try:
            self._files.host_path(uri, create=False)
        except NotFound:
            return False
        return True

    def _check_place(self, volume: Volume, outer: Volume) -> None:
        # In a volume that can be written to, the engine makes what is missing.
        names = _parts(volume)[len(_parts(outer)) :]
        place = storage_uri(outer.src_storage_uri, self._cluster).child(*names)
        try:
            there = self._files.host_path(place, create=False).is_dir()
        except NotFound:
            raise InvalidInput(
                f"The volume at '{volume.dst_path}' has no place: the volume around it, at"
                f" '{outer.dst_path}', is read-only and has no '{'/'.join(names)}'. Make it there"
                f" (`neuro mkdir -p {place}`), mount '{outer.dst_path}' with ':rw', or choose a"
                " path outside of it."
            ) from None
        except InvalidInput:
            return  # A link: where it leads is known in the job alone.
        if there != self._source(volume.src_storage_uri, create=False).is_dir():
            kinds = ("file", "folder") if there else ("folder", "file")
            raise InvalidInput(
                f"The volume at '{volume.dst_path}' is a {kinds[0]}, and a {kinds[1]} is there in"
                f" the read-only volume at '{outer.dst_path}': choose another path."
            )

    def _source(self, text: str, *, create: bool) -> Path:
        uri = storage_uri(text, self._cluster)
        try:
            return self._files.host_path(uri, create=create)
        except NotFound:
            raise InvalidInput(
                f"{text} does not exist: upload it with `neuro cp`, or mount it ':rw' to have an"
                " empty folder made."
            ) from None

    async def _volumes_of(self, record: JobRecord) -> tuple[base.Volume, ...]:
        container = record.specification.container
        if not container.volumes:
            return ()
        return await self._files.in_turn_of(record.owner, lambda: self._volumes(container))

    def _volumes(self, container: Container) -> tuple[base.Volume, ...]:
        if is_builder_image(container.image):
            builders.check_places([*container.volumes, *container.secret_volumes])
        return tuple(map(self._volume, container.volumes))

    def _volume(self, volume: Volume) -> base.Volume:
        """What an engine mounts. A folder that is to be written to is made where it is missing."""
        self._source(volume.src_storage_uri, create=not volume.read_only)
        return base.Volume(
            source=storage_uri(volume.src_storage_uri, self._cluster),
            target=volume.dst_path,
            read_only=volume.read_only,
        )

    async def make_spec(self, record: JobRecord) -> RunSpec:
        """What an engine runs for a record.

        Raises PlatformError where a volume or a secret is gone.
        """
        spec = record.specification
        container = spec.container
        if spec.is_builder:
            return await self._build(record)
        entrypoint, argv = entrypoint_and_argv(container)
        image, pull = self.image_of(record)
        volumes = await self._volumes_of(record)
        secrets = await self._secrets(record)
        env = await self._environment(record)
        return RunSpec(
            job_id=record.id,
            run=record.run,
            image=image,
            pull=pull,
            mirror_of=self._mirrored(record).partition("/")[0],
            entrypoint=entrypoint,
            argv=argv,
            env=env,
            secret_env={name: it for name, it in secrets.env.items() if name not in env},
            files=secrets.files,
            working_dir=container.working_dir,
            hostname=record.id,
            volumes=volumes,
            tty=container.tty,
            stdin=container.stdin,
            cpu=spec.amount.cpu,
            memory=spec.amount.memory,
            node=record.node,
            gpus=record.gpus or (),
            shm=container.resources.shm,
            privileged=spec.privileged,
            disk=self._disk_of(spec.preset_name),
            neighbours=record.owner,
            person=person_of(record.owner),
            names=_names(record),
            control=spec.control,
        )

    async def _build(self, record: JobRecord) -> RunSpec:
        spec = record.specification
        container, known_as = spec.container, spec.registry
        registry = urlsplit(self._api_url(record.engine)).netloc
        token = await self._make_token(record)
        secrets = await self._secrets(record)
        key = builders.cache_key(self._cluster, record.owner)
        daemon = self._build_daemon()
        told = builders.daemon_of(self._registry, key) if daemon else {}
        return RunSpec(
            job_id=record.id,
            run=record.run,
            image=BUILDER_IMAGE,
            entrypoint=builders.command_of(self._commands),
            argv=builders.arguments_of(
                container, known_as, registry, record.cluster, record.owner, self._mirrors
            ),
            env={**_given(record), **builders.volumes_of(container), **told},
            hostname=record.id,
            volumes=await self._volumes_of(record),
            files=(
                *builders.configuration(container, (known_as, registry), token),
                *secrets.files,
            ),
            tty=container.tty,
            stdin=container.stdin,
            cpu=spec.amount.cpu,
            memory=spec.amount.memory,
            node=record.node,
            disk=self._disk_of(spec.preset_name),
            neighbours=record.owner,
            person=person_of(record.owner),
            names=_names(record),
            nesting=True,
            build_cache=key,
            build_daemon=daemon,
        )

    def image_of(self, record: JobRecord) -> tuple[str, PullCredentials | None]:
        """By which name the engine finds the image, and with what it is pulled."""
        # By its host, too, it is the registry's to say who may have it: the daemon, which may have
        # it already, gives it to everybody.
        image = in_registry(record.specification.container.image, self._registry)
        if path := self._mirrored(record):
            image = f"image:/{path}"
        own = own_image(image, cluster=self._cluster, user=record.owner)
        if own is None:
            return image, None
        token = self._image_token(record.owner, own.uri)
        return own.at(self._registry), PullCredentials("token", token)

    def _mirrored(self, record: JobRecord) -> str:
        """The path of the image where it comes through a mirror; empty where it does not."""
        image = in_registry(record.specification.container.image, self._registry)
        if not self._mirrors or _is_ours(image):
            return ""
        return mirrored(image, self._mirrors) or ""

    async def _environment(self, record: JobRecord) -> dict[str, str]:
        spec = record.specification
        given = _given(record)
        if spec.pass_config:
            token = await self._make_token(record)
            login = {
                "token": token,
                "cluster": record.cluster,
                # What is kept of a control job is what it was told: see ``JobService.is_stranded``.
                "url": spec.api_url or self._api_url(record.engine),
                "org_name": None,
                "project_name": record.owner,
            }
            given[PASSED_CONFIG] = base64.b64encode(msgspec.json.encode(login)).decode()
        path = spec.container.env.get("PATH")
        if path is not None and is_executor_image(spec.container.image):
            given["PATH"] = f"{self._commands}:{path}"
        return {**spec.container.env, **given}


def _is_ours(image: str) -> bool:
    """Whether an image is one that is in no public registry, whatever its name looks like."""
    return (
        image.startswith("image:")
        or is_host_image(image)
        or is_executor_image(image)
        or is_builder_image(image)
    )


def _given(record: JobRecord) -> dict[str, str]:
    """What every job finds in its environment."""
    spec = record.specification
    http = spec.container.http
    return {
        "NEURO_JOB_ID": record.id,
        "NEURO_JOB_NAME": record.name or "",
        "NEURO_JOB_OWNER": record.owner,
        "NEURO_JOB_CLUSTER": record.cluster,
        "NEURO_JOB_INTERNAL_HOSTNAME": _internal_name(record),
        "NEURO_JOB_INTERNAL_HOSTNAME_NAMED": _named_internal_name(record),
        "NEURO_JOB_HTTP_PORT": str(http.port) if http else "",
        "NEURO_JOB_HTTP_AUTH": str(http.requires_auth) if http else "",
        "NEURO_JOB_PRESET": spec.preset_name or "",
    }


def _parts(volume: Volume) -> tuple[str, ...]:
    return tuple(part for part in volume.dst_path.split("/") if part not in ("", "."))


def _nested(volumes: Iterable[Volume]) -> Iterator[tuple[Volume, Volume]]:
    """Each volume that is mounted in other ones, with the innermost of these."""
    around: list[tuple[tuple[str, ...], Volume]] = []
    # What is mounted in a volume comes behind it in this order, before all that is not.
    for parts, volume in sorted(((_parts(it), it) for it in volumes), key=lambda it: it[0]):
        while around and around[-1][0] != parts[: len(around[-1][0])]:
            around.pop()
        if around:
            yield volume, around[-1][1]
        around.append((parts, volume))


def _internal_name(record: JobRecord) -> str:
    return f"{record.id}.{_DOMAIN}"


def _named_internal_name(record: JobRecord) -> str:
    label = host_label(record)
    return f"{label}.{_DOMAIN}" if label else ""


def _names(record: JobRecord) -> tuple[str, ...]:
    """The host names under which other jobs of its owner reach a job, if it has a network."""
    every = (record.id, _internal_name(record), record.name, _named_internal_name(record))
    return tuple(name for name in every if name)


def _made(folders: list[str]) -> list[str]:
    """What to say of folders that were made. Few are named: clients take a header of 8 KB."""
    if not folders:
        return []
    if len(folders) == 1:
        return [f"{folders[0][:_LONGEST_NAME]} did not exist: an empty folder was made there."]
    first = ", ".join(folder[:_LONGEST_NAME] for folder in folders[:_NAMED])
    more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
    return [f"{first}{more} did not exist: empty folders were made there."]
