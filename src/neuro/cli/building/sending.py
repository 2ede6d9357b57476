"""What goes to the storage for a build: the context, for the next build too, and secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from neuro.cli.building.source import Source, check_dockerfile
from neuro.cli.building.wanted import Wanted
from neuro.cli.context import Context
from neuro.cli.failures import Failure
from neuro.client.builds import CONTEXT, SENT, Secret
from neuro.client.kept_contexts import ContextFolder
from neuro.domain.errors import PlatformError
from neuro.domain.jobs import Volume


@contextmanager
def sent(
    context: Context, source: Source, wanted: Wanted
) -> Iterator[tuple[list[Volume], tuple[Secret, ...]]]:
    """Have all of it in a folder of the storage as long as the build goes on.

    Then the context stays for the next one, and the rest goes. Raises Failure for a Dockerfile
    that is wrong, before anything is sent.
    """
    secret_files = wanted.secrets
    mounted = []
    if source.uri is not None:
        mounted.append(Volume(src_storage_uri=str(source.uri), dst_path=CONTEXT, read_only=True))
    files = [(f"secrets/{n}", it.content) for n, it in enumerate(secret_files)]
    files += source.outside
    if source.top is None and not files:
        yield mounted, ()
        return
    folder = ContextFolder(context.client.storage, source.key)
    context.run(folder.take())
    mounted.append(Volume(src_storage_uri=str(folder.uri), dst_path=SENT, read_only=True))
    _check(context, folder, source, wanted)
    try:
        _send(context, folder, source, files)
        paths = [f"{SENT}/secrets/{number}" for number in range(len(secret_files))]
        ids = [it.id for it in secret_files]
        yield mounted, tuple(map(Secret, ids, paths))
    except BaseException:
        # A build that was killed may read it for a moment: no other one may change it meanwhile.
        _remove(context, folder)
        raise
    _give_back(context, folder, [name for name, _ in files])
    with suppress(PlatformError):  # the next build tries again
        context.run(folder.sweep(context.client.jobs, context.client.user))


def _check(context: Context, folder: ContextFolder, source: Source, wanted: Wanted) -> None:
    """Read the Dockerfile, unless that was done when the kept context was sent.

    What is wrong with it by other arguments than those of that time, the builder says.
    """
    dockerfile = source.unchecked
    if dockerfile is None or dockerfile.mark == folder.checked:
        return
    try:
        check_dockerfile(context, dockerfile.content, dockerfile.name, wanted)
    except BaseException:
        with suppress(PlatformError):  # then it is one that a client left that was killed
            context.run(folder.put_back())
        raise
    folder.checked = dockerfile.mark


def _send(
    context: Context,
    folder: ContextFolder,
    source: Source,
    files: Sequence[tuple[str, bytes]],
) -> None:
    for name, content in files:
        context.run(folder.add(name, content))
    if source.top is None:
        return
    change = folder.change(source.items)
    if change.is_empty and not folder.is_new:
        context.out.info(f"Sent 0 files of {source.top} to {folder.uri}")
        return
    from neuro.cli.storage.items import Items
    from neuro.cli.storage.progress import showing

    with showing(context, Items(context)) as progress:
        outcome = context.run(folder.send(change, progress))
    if outcome.failed:
        count = len(outcome.failed)
        what = "1 file was" if count == 1 else f"{count} files were"
        raise Failure(
            f"{what} not sent, so nothing is built. What the build does not need can be left out by"
            " a line in .dockerignore."
        )
    context.out.info(f"Sent {outcome.files} files of {source.top} to {folder.uri}")


def _give_back(context: Context, folder: ContextFolder, added: Sequence[str]) -> None:
    """Keep the context for the next build. The build is over: no trouble here changes its end."""
    try:
        context.run(folder.give_back(added))
    except BaseException as error:
        _remove(context, folder)
        if not isinstance(error, PlatformError):
            raise


def _remove(context: Context, folder: ContextFolder) -> None:
    try:
        context.run(folder.remove())
    except PlatformError as error:
        context.out.warning(
            f"What was sent for the build is still at {folder.uri} ({error}):"
            f" `neuro rm -r {folder.uri}` removes it."
        )
