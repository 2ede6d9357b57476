"""Which builds the daemon's BuildKit is given, and which ones are always ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from neuro.builder.bases import Base
from neuro.builder.faults import BuildFault
from neuro.dockerfile.steps import AddFiles, BaseImage, Execute, GitTree, Plan, RemoteFile
from neuro.dockerfile.tree import CommandLine, Copy, Dockerfile

_RESERVED = "BUILDKIT_"  # begins arguments that say how a build is made, and not what it makes


class Unfit(Exception):
    """BuildKit cannot have a build; the text says why, as the end of a sentence."""


def check_arguments(names: Collection[str]) -> None:
    """Raise BuildFault for arguments that would change how the daemon builds.

    One of them names a program of anybody's that reads the Dockerfile, another whose caches are
    mounted.
    """
    for name in names:
        if name.upper().startswith(_RESERVED):
            raise BuildFault(
                f"The build argument {name} is reserved: it changes how the daemon builds.",
                f"Leave --build-arg {name}=… out.",
            )


def check(plan: Plan, bases: Mapping[BaseImage, Base], volumes: Collection[str]) -> None:
    """Raise Unfit for a build that only we can make, or that only we make safely."""
    for reason in _reasons(plan, bases, volumes):
        raise Unfit(reason)


def check_registries(registries: Mapping[str, str], own: Collection[str]) -> None:
    """Raise Unfit for images of other registries than the platform's, of the hosts ``own``.

    ``registries`` are the hosts that answer for each image. A registry says where the daemon goes
    next, to sign in and for each layer, and that one goes from where this machine's own services
    answer.
    """
    for image, host in registries.items():
        if host not in own:
            raise Unfit(
                f"{image} is in another registry than the platform's, which could send the daemon"
                " anywhere in the machine's network"
            )


def has_heredocs(tree: Dockerfile) -> bool:
    """Whether an instruction has a here-document."""
    every = [one for stage in tree.stages for one in stage.instructions]
    commands = [getattr(one, "command", None) for one in every]
    return any(isinstance(one, Copy) and one.contents for one in every) or any(
        isinstance(one, CommandLine) and one.heredocs for one in commands
    )


def _reasons(
    plan: Plan, bases: Mapping[BaseImage, Base], volumes: Collection[str]
) -> Iterator[str]:
    for image, base in bases.items():
        if base.on_host:
            yield f"{image.reference} is the machine's userland"
        elif not base.digest:
            yield f"{image.reference} has no digest"
    if volumes:
        yield f"the job has a volume for commands, at {min(volumes)}"
    for step in plan.steps:
        if isinstance(step, AddFiles) and any(
            isinstance(one, RemoteFile | GitTree) for one in step.sources
        ):
            # The daemon would fetch it, from where this machine's own services answer.
            yield f"ADD in line {step.line} takes files of the network"
        if isinstance(step, Execute):
            if step.network == "host":
                yield f"RUN in line {step.line} asks for the network of the host"
            if step.devices:
                yield f"RUN in line {step.line} asks for a device"
            if any(mount.kind == "ssh" for mount in step.mounts):
                yield f"RUN in line {step.line} asks for an SSH agent"
