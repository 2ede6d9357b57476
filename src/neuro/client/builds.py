"""Builds of images: the job that a build is, as pure functions of values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from neuro.client.job_request import Where, environment, parse_volumes
from neuro.domain.durations import parse_duration
from neuro.domain.errors import InvalidInput
from neuro.domain.images import BUILDER_IMAGE, OwnImage
from neuro.domain.jobs import JobRequest, Volume
from neuro.domain.life_spans import life_span_minutes

# Where the builder finds what was sent for one build, and a context that is in the storage.
SENT = "/kaniko/build"
CONTEXT = "/kaniko/context"
DOCKERFILE = "Dockerfile"
LIFE_SPAN = "1d"
_OF_PLATFORM = re.compile(r"id=(?P<id>[^,]+),(?:src|source)=(?P<secret>secret:[^,]+)")


class Secret(NamedTuple):
    """A file that RUN steps may ask for by ``id``; it is at ``path`` in the builder."""

    id: str
    path: str


class Build(NamedTuple):
    """What to build, by the places where the builder finds it.

    ``dockerfile`` is relative to the ``context``, or absolute. ``build_args`` are ``NAME=VALUE``,
    or NAME for that of ``env``. ``more`` are further arguments of the builder.
    """

    images: tuple[OwnImage, ...]
    context: str
    dockerfile: str = DOCKERFILE
    build_args: tuple[str, ...] = ()
    target: str | None = None
    secrets: tuple[Secret, ...] = ()
    env: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    preset: str | None = None
    cache: bool = True
    more: tuple[str, ...] = ()


def platform_secret(text: str, number: int) -> tuple[str, str] | None:
    """The volume and the builder's argument for a secret of the platform; None for any other.

    >>> platform_secret("id=pip,src=secret:pip-conf", 0)
    ('secret:pip-conf:/kaniko/secrets/0', '--secret=id=pip,src=/kaniko/secrets/0')
    """
    found = _OF_PLATFORM.fullmatch(text)
    if found is None:
        return None
    path = f"/kaniko/secrets/{number}"
    return f"{found['secret']}:{path}", f"--secret=id={found['id']},src={path}"


def arguments(build: Build, registry: str) -> list[str]:
    """The builder's arguments; ``registry`` is the host of the platform's registry."""
    words = [f"--context={build.context}", f"--dockerfile={build.dockerfile}"]
    words += [f"--destination={image.at(registry)}" for image in build.images]
    words += [f"--build-arg={argument}" for argument in build.build_args]
    if build.target:
        words.append(f"--target={build.target}")
    words += [f"--secret=id={secret.id},src={secret.path}" for secret in build.secrets]
    if not build.cache:
        words.append("--cache=false")
    return [*words, *build.more]


def build_request(
    build: Build,
    registry: str,
    where: Where,
    *,
    mounted: Iterable[Volume] = (),
    environ: Mapping[str, str],
) -> JobRequest:
    """The job that builds; ``mounted`` are its volumes beside those of the build.

    ``environ`` is the local environment, for ``-e NAME``. Raises InvalidInput.
    """
    env, secret = environment(build.env, environ, where)
    if secret:
        raise InvalidInput("A build takes secrets by --secret id=NAME,src=FILE, and not by --env.")
    volumes = parse_volumes(build.volumes, where)
    return JobRequest(
        cluster_name=where.cluster,
        preset_name=build.preset,
        description=f"Builds {build.images[0]}" if build.images else "Builds an image",
        max_run_time_minutes=life_span_minutes(
            parse_duration(LIFE_SPAN).total_seconds(), LIFE_SPAN
        ),
        image=BUILDER_IMAGE,
        command=shlex.join(arguments(build, registry)),
        env=env,
        volumes=[*mounted, *volumes.storage],
        secret_volumes=volumes.secrets,
        disk_volumes=volumes.disks,
    )
