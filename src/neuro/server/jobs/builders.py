"""Jobs that build images: what may be asked of them, and what their program is told.

Their runs may make sandboxes of their own, so nothing runs there but the platform's builder.
Whoever submits one chooses its arguments and the volumes beside it, and neither the command, nor
what the program is loaded from, nor its environment.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from itertools import combinations

import msgspec

import neuro
from neuro.docker.build_place import BuildPlace, as_environment
from neuro.domain.errors import InvalidInput, PlatformError
from neuro.domain.images import BUILD_CACHE, BUILD_VOLUMES, is_builder_image
from neuro.domain.jobs import Container, ContainerRequest, JobRequest, SecretVolume, Volume
from neuro.domain.mounts import place_of
from neuro.domain.resources import Amount
from neuro.engines.base import File
from neuro.server.access.people import person_of
from neuro.server.jobs.specification import entrypoint_and_argv

# Where Docker's configuration is for the published images that build.
CONFIG = "/kaniko/.docker/config.json"
# Of the job, and not of what is built.
_OWN = ("/kaniko", "/kaniko_context", "/workspace")
_KANIKO = "/kaniko/executor"  # as its users write it where they give an entrypoint
_BUILD_ARG = "--build-arg"
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", BUILD_CACHE)


def mistakes(request: JobRequest, container: ContainerRequest) -> Iterator[PlatformError]:
    """Every rule of builders that a request breaks; of other jobs none."""
    if not is_builder_image(container.image):
        return
    if request.privileged:
        yield InvalidInput("A job that builds images cannot be privileged: leave --privileged out.")
    if request.pass_config:
        yield InvalidInput(
            "A job that builds images has a login for the registry alone: leave --pass-config out."
        )
    if container.secret_env:
        yield InvalidInput(
            "A job that builds images gets secrets as files alone: mount one below /kaniko/secrets,"
            " and give it to the build with --secret=id=NAME,src=FILE."
        )
    if container.entrypoint not in (None, "", _KANIKO):
        yield InvalidInput(
            f"A job in the image {container.image} runs the platform's builder: leave the"
            " entrypoint out, and give the builder's arguments as the command."
        )


def check_places(mounted: Iterable[Volume | SecretVolume]) -> None:
    """Raise InvalidInput for a volume, or a secret, where the builder's own program is.

    None may be within another one either: a link in that could lead anywhere.
    """
    places = [place_of(one.dst_path) for one in mounted]
    for place in places:
        if any(_overlap(each, taken) for each in _names(place) for taken in _program()):
            raise InvalidInput(
                f"A job that builds images cannot have a volume at '{place}', where programs of the"
                " machine are: choose another path, such as /kaniko/NAME."
            )
    for one, other in combinations(places, 2):
        if _overlap(one, other):
            raise InvalidInput(
                f"A job that builds images cannot have a volume within another one: '{one}' and"
                f" '{other}'. Choose places beside each other."
            )


def _names(place: str) -> set[str]:
    return {place, os.path.realpath(place)}


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@cache
def _program() -> frozenset[str]:
    found = {*_SYSTEM, *sys.path, *sysconfig.get_paths().values(), *neuro.__path__}
    found |= {sys.executable, sys.prefix, sys.base_prefix, sys.exec_prefix}
    return frozenset(
        name for each in found if each for name in _names(each) if name.startswith("/")
    )


def host_of(text: str) -> str:
    """The host by which a caller knows the registry; empty for what cannot be one."""
    return text if _HOST.fullmatch(text) else ""


def amount_on(amount: Amount, machine: Amount | None) -> Amount:
    """What of a preset a builder takes: as much of it as the embedded engine has, and no GPU."""
    if machine is None or not (machine.cpu > 0 and machine.memory > 0):
        return Amount(cpu=amount.cpu, memory=amount.memory)
    return Amount(cpu=min(amount.cpu, machine.cpu), memory=min(amount.memory, machine.memory))


def command_of(commands: str) -> tuple[str, ...]:
    """The program; ``commands`` is the folder of the platform's own.

    Isolated, so that nothing in its working directory and its environment is loaded.
    """
    return f"{commands}/python", "-I", "-m", "neuro.builder"


def arguments_of(
    container: Container,
    known_as: str,
    registry: str,
    cluster: str,
    owner: str,
    mirrors: Collection[str] = (),
) -> tuple[str, ...]:
    """The builder's arguments: what the platform adds, and the person's own.

    The registry of the platform is at the host ``registry`` there, and the person knows it as
    ``known_as``; ``image:NAME`` there is an image of the ``owner``, and images of the registries
    ``mirrors`` come through it. A build argument without a value has it from the job's
    environment.
    """
    _, words = entrypoint_and_argv(container)
    own = [
        f"--insecure-registry={registry}",
        f"--own-registry={registry}/{cluster}/{owner}",
        "--whole-manifests",
    ]
    if known_as and known_as != registry:
        own.append(f"--registry-map={known_as}={registry}")
    own += [f"--mirror={name}" for name in sorted(mirrors)]
    return (*own, *_with_values(words, container.env))


def _with_values(words: Iterable[str], env: Mapping[str, str]) -> Iterator[str]:
    is_next = False
    for word in words:
        option, equals, text = word.partition("=")
        if is_next:
            option, equals, text = _BUILD_ARG, "=", word
        elif word == _BUILD_ARG:
            is_next = True
            continue
        is_next = False
        if option == _BUILD_ARG and equals and "=" not in text and text in env:
            yield f"{_BUILD_ARG}={text}={env[text]}"
        elif option == _BUILD_ARG and equals:
            yield f"{_BUILD_ARG}={text}"
        else:
            yield word
    if is_next:
        yield _BUILD_ARG


def volumes_of(container: Container) -> dict[str, str]:
    """What the builder is told of the volumes that commands in the image see, too.

    What is below /kaniko is the builder's own: the context, secrets, passwords.
    """
    shown = [
        {"path": place_of(it.dst_path), "read_only": it.read_only}
        for it in container.volumes
        if not any(_overlap(place_of(it.dst_path), own) for own in _OWN)
    ]
    return {BUILD_VOLUMES: msgspec.json.encode(shown).decode()} if shown else {}


def daemon_of(registry: str, key: str) -> dict[str, str]:
    """What the builder is told where a daemon of the machine builds.

    That one finds the platform's registry at ``registry``; ``key`` is of the owner's caches there.
    """
    return as_environment(BuildPlace(registry, key))


def configuration(container: Container, hosts: Iterable[str], token: str) -> tuple[File, ...]:
    """Docker's configuration with a login for the registry, unless a volume brings another one."""
    mounted: list[Volume | SecretVolume] = [*container.volumes, *container.secret_volumes]
    if any(_overlap(place_of(one.dst_path), CONFIG) for one in mounted):
        return ()
    login = base64.b64encode(f"token:{token}".encode()).decode()
    auths = {host: {"auth": login} for host in hosts if host}
    return (File(target=CONFIG, content=msgspec.json.encode({"auths": auths})),)


def cache_key(cluster: str, owner: str) -> str:
    """The name of an owner's layers: one word, whatever the owner is called.

    A service account has layers of its own, as it may read less than its person. Its key begins
    with its person's, for whose share of the room they are counted.
    """
    person = person_of(owner)
    key = _hashed(f"{cluster}/{person}")
    return key if person == owner else f"{key}-{_hashed(f'{cluster}/{owner}')}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
