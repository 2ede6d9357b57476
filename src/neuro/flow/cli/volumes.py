"""Volumes: folders here that have a counterpart in the storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from neuro.cli.lazy import Command
from neuro.flow.cli.context import FlowContext, pass_context
from neuro.flow.cli.failures import Failed
from neuro.flow.cli.names import ALL, offer, one_or_all
from neuro.flow.cli.platform import COPY, MAKE_FOLDER, REMOVE, neuro
from neuro.flow.command_line import COPY_OPTIONS, parent_of
from neuro.flow.evaluate.contexts import VolumeRecord

# A volume's URI is taken literally.
_AS_IT_IS = "--no-glob"
_SUMMARY = "--summary"


def _wanted(context: FlowContext, name: str) -> list[VolumeRecord]:
    found = one_or_all("volume", name, context.sections.volumes)
    if name == ALL:
        local = [volume for volume in found if volume.local is not None]
        if not local:
            context.out.note(
                "No volume of this project has a folder here (`local:`), so there is nothing to do."
            )
        return local
    if found[0].local is None:
        raise Failed(f"Volume {name} has no local folder: give it `local:` where it is declared", 2)
    return found


def missing_volume(context: FlowContext, said: str) -> str | None:
    """What to do where the platform said that one of the workflow's volumes is not there."""
    from neuro.domain.errors import InvalidInput
    from neuro.domain.uris import complete_uri, full_text

    account = context.account
    for volume in context.sections.volumes.values():
        try:
            uri = complete_uri(
                str(volume.remote), "storage", cluster=account.cluster, user=account.user
            )
        except InvalidInput:
            continue  # A disk, for example.
        if f"{full_text(uri)} does not exist" not in said:
            continue
        if volume.local is None:
            return f"It is volume '{volume.id}': `neuro mkdir -p {volume.remote}` makes its folder."
        return (
            f"It is volume '{volume.id}' of this project:\n"
            f"  neuro-flow mkvolumes           # makes the folders of all volumes\n"
            f"  neuro-flow upload {volume.id:<12} # copies {volume.local} there"
        )
    return None


def _each(volumes: Iterable[VolumeRecord], action: Callable[[VolumeRecord], int]) -> int:
    codes = [action(volume) for volume in volumes]
    return next((code for code in codes if code), 0)


def send(context: FlowContext, volume: VolumeRecord, *options: str) -> int:
    """Copy what is newer here, or has another size, to the storage; the exit code.

    ``options`` are further ones of ``neuro cp``.
    """
    folder, local = parent_of(volume.remote), str(volume.full_local_path)
    if code := neuro(context, MAKE_FOLDER, "--parents", "--", folder, name="mkdir"):
        return code
    words = (*COPY_OPTIONS, *options, _AS_IT_IS, "--", local, volume.remote)
    return neuro(context, COPY, *words, name="cp")


@click.command("mkvolumes", cls=Command, examples="neuro-flow mkvolumes")
@pass_context
def mkvolumes(context: FlowContext) -> int:
    """Make the folder in the storage of every volume that has a local one."""

    def make(volume: VolumeRecord) -> int:
        context.out.print(f"Create volume {volume.id}")
        context.out.flush()
        return neuro(context, MAKE_FOLDER, "--parents", "--", volume.remote, name="mkdir")

    return _each(_wanted(context, ALL), make)


@click.command(
    "upload",
    cls=Command,
    examples="""
        neuro-flow upload code
        neuro-flow upload ALL
    """,
)
@click.argument("volume", shell_complete=offer("volumes"))
@pass_context
def upload(context: FlowContext, volume: str) -> int:
    """Send the local folder of VOLUME, or of ALL: what is newer here, or has another size."""
    return _each(_wanted(context, volume), lambda it: send(context, it, _SUMMARY))


@click.command("download", cls=Command, examples="neuro-flow download results")
@click.argument("volume", shell_complete=offer("volumes"))
@pass_context
def download(context: FlowContext, volume: str) -> int:
    """Get the folder of VOLUME, or of ALL, from the storage: what is newer there."""

    def get(it: VolumeRecord) -> int:
        local = str(it.full_local_path)
        # Changes made here since then must not be lost.
        words = (*COPY_OPTIONS, "--keep-newer", _SUMMARY, _AS_IT_IS, "--", it.remote, local)
        return neuro(context, COPY, *words, name="cp")

    return _each(_wanted(context, volume), get)


@click.command("clean", cls=Command, examples="neuro-flow clean results")
@click.argument("volume", shell_complete=offer("volumes"))
@pass_context
def clean(context: FlowContext, volume: str) -> int:
    """Remove the folder of VOLUME, or of ALL, from the storage. Nothing local is touched."""

    def remove(it: VolumeRecord) -> int:
        return neuro(context, REMOVE, "--recursive", _AS_IT_IS, "--", it.remote, name="rm")

    return _each(_wanted(context, volume), remove)
