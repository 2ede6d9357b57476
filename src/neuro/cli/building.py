"""Building an image on the platform: sending what it is made of, and being there while it is built.

``neuro image build`` and ``neuro-flow build`` are this.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from neuro.cli.context import Context
from neuro.cli.failures import BAD_VALUE, Failure
from neuro.client.build_context import Item, context_items, ignored_in
from neuro.client.builds import CONTEXT, DOCKERFILE, LIFE_SPAN, SENT, Build, Secret, build_request
from neuro.client.job_request import Where, environment
from neuro.dockerfile.parser import MAX_BYTES, parse
from neuro.dockerfile.plan import plan
from neuro.dockerfile.tree import Dockerfile, DockerfileError
from neuro.domain.errors import InvalidInput, NotFound, PlatformError
from neuro.domain.images import OwnImage
from neuro.domain.jobs import Job, Reason, Volume
from neuro.domain.uris import ResourceURI

if TYPE_CHECKING:
    from neuro.cli.storage.progress import CommandProgress

# What to do about a build that its Dockerfile has not ended.
_ENDED = {
    Reason.NOT_FOUND: "Build it again: the steps that were done are kept.",
    Reason.LIFE_SPAN_ENDED: (
        f"A build may take {LIFE_SPAN}. Build it again: the steps that were done are kept."
        " `neuro job bump-life-span JOB 1d` gives a build that goes on another day."
    ),
}
_SENT = "storage:.builds"
_STORAGE = "storage:"
MAX_SECRET = 512 * 1024


class SecretFile(NamedTuple):
    """What RUN steps may read as the secret ``id``."""

    id: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a person wants to be built.

    ``context`` is a folder of this machine, or a storage URI; ``dockerfile`` a path in it, or on
    this machine. ``more`` are further arguments of the builder.
    """

    context: str
    images: tuple[OwnImage, ...]
    dockerfile: str | None = None
    build_args: tuple[str, ...] = ()
    target: str | None = None
    secrets: tuple[SecretFile, ...] = ()
    volumes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    preset: str | None = None
    cache: bool = True
    force: bool = False
    more: tuple[str, ...] = ()


class Built(NamedTuple):
    """The end of a build. ``size`` in bytes is what a pull takes; both are None where it failed."""

    exit_code: int
    job: Job
    digest: str | None = None
    size: int | None = None


def build(context: Context, wanted: Wanted, *, log: int = 1) -> Built:
    """Build and push an image; its log goes to the descriptor ``log``. Ctrl-C kills the job.

    Raises Failure for a Dockerfile that is wrong (with each place), before anything is sent, and
    for an image that exists, unless ``force``.
    """
    client = context.client
    source = _source(context, wanted)
    if not wanted.force:
        _refuse_existing(context, wanted.images)
    preset = wanted.preset or _first_preset(context)
    with _sent(context, source, wanted.secrets) as (mounted, secret_paths):
        job_build = Build(
            wanted.images,
            source.place,
            source.dockerfile,
            _build_args(context, wanted),
            wanted.target,
            secret_paths,
            wanted.env,
            wanted.volumes,
            preset,
            wanted.cache,
            wanted.more,
        )
        request = build_request(
            job_build,
            client.images.host,
            Where(client.cluster, client.user),
            mounted=mounted,
            environ=os.environ,
        )
        submitted = context.run(client.jobs.submit(request))
        for notice in submitted.notices:
            context.out.note(notice)
        code = _watch(context, submitted.job, log)
        if code != 0:
            _advise(context, submitted.job)
    if code != 0 or not wanted.images:
        return Built(code, submitted.job)
    first = wanted.images[0]
    digest = context.run(client.images.digest(first))
    return Built(0, submitted.job, digest, context.run(client.images.size(first)))


def tagged(context: Context, text: str) -> OwnImage:
    """The image that a build is pushed as. Raises InvalidInput for one that is named by digest."""
    image = context.client.images.image(text)
    if "@" in image.version:
        raise InvalidInput(f"'{text}' is a digest, which only a build can tell: write NAME:TAG.")
    return image


def read_secret(text: str, environ: Mapping[str, str]) -> SecretFile:
    """The secret of ``id=NAME,src=FILE``, ``id=NAME,env=VARIABLE`` or ``id=NAME``.

    The last is the variable NAME, or the file of that name, as in Docker. Raises InvalidInput.
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in ("id", "src", "source", "env", "type") or not value:
            raise InvalidInput(
                f"'{text}' is not a secret: write id=NAME,src=FILE or id=NAME,env=VARIABLE."
            )
        given["src" if name == "source" else name] = value
    id_ = given.get("id")
    if id_ is None:
        raise InvalidInput(f"'{text}' has no id: write id=NAME,src=FILE, as the Dockerfile asks.")
    variable = given.get("env") or (id_ if "src" not in given and id_ in environ else None)
    if variable is not None:
        if variable not in environ:
            raise InvalidInput(f"The variable {variable} of the secret '{id_}' is not set here.")
        content = environ[variable].encode(errors="surrogateescape")
    else:
        content = Path(given.get("src", id_)).expanduser().read_bytes()
    if len(content) > MAX_SECRET:
        raise InvalidInput(f"The secret '{id_}' has over {MAX_SECRET:,} bytes.")
    return SecretFile(id_, content)


def say_built(context: Context, images: Sequence[OwnImage], built: Built) -> None:
    """The end of what a build says: the reference, the digest and the size."""
    from neuro.cli.render.sizes import gnu_size

    size = gnu_size(built.size or 0)
    for image in images:
        context.out.print(f"{image} ({built.digest}, {size})")


# Before anything is sent


@dataclass(frozen=True)
class _Source:
    """Where the context is, and what of it goes to the storage.

    ``place`` and ``dockerfile`` are as in ``Build``. ``outside`` is a Dockerfile that is not in
    the context, ``uri`` that of a context in the storage, ``top`` a local one.
    """

    place: str
    dockerfile: str
    top: Path | None = None
    items: tuple[Item, ...] = ()
    uri: ResourceURI | None = None
    outside: bytes | None = None


def _source(context: Context, wanted: Wanted) -> _Source:
    if wanted.context.startswith(_STORAGE):
        return _in_storage(context, wanted)
    return _on_this_machine(context, wanted)


def _on_this_machine(context: Context, wanted: Wanted) -> _Source:
    top = Path(wanted.context).expanduser()
    if not top.is_dir():
        raise Failure(
            f"The context {wanted.context} is not a folder of this machine: name the folder that"
            " the Dockerfile copies from, such as '.'.",
            BAD_VALUE,
        )
    path = _dockerfile(top, wanted.dockerfile)
    inside = _relative(path, top)
    content = path.read_bytes()
    shown = os.path.relpath(path)
    check_dockerfile(context, content, shown, wanted)
    name = inside or path.name
    place = f"{SENT}/context"
    try:
        patterns, ignore_file = ignored_in(top, name)
    except DockerfileError as error:
        raise _wrong(error) from None
    always = {it for it in (inside, ignore_file) if it is not None}
    items = tuple(context_items(top, patterns, always))
    if inside is not None:
        return _Source(place, inside, top, items)
    return _Source(place, f"{SENT}/{DOCKERFILE}", top, items, outside=content)


def _in_storage(context: Context, wanted: Wanted) -> _Source:
    storage = context.client.storage
    uri = storage.uri(wanted.context)
    name = wanted.dockerfile or DOCKERFILE
    where = uri.child(*(part for part in name.split("/") if part not in ("", ".")))
    try:
        content = context.run(storage.read_bytes(where))
    except NotFound:
        raise Failure(
            f"There is no '{where}': copy the Dockerfile there with `neuro cp`, or name it with"
            " --file.",
            BAD_VALUE,
        ) from None
    check_dockerfile(context, content, str(where), wanted)
    return _Source(CONTEXT, name, uri=uri)


def _dockerfile(top: Path, given: str | None) -> Path:
    """In the context, or, if there is none of that name, from where the person is."""
    name = Path(given or DOCKERFILE).expanduser()
    for path in (top / name, name):
        if path.is_file():
            return path
    hint = "name it with --file" if given is None else "--file is a path in the context, or here"
    raise Failure(f"There is no {name} in {top}: {hint}.", BAD_VALUE)


def _relative(path: Path, top: Path) -> str | None:
    """The path within the context, if it is in it."""
    found = Path(os.path.relpath(path, top))
    return None if ".." in found.parts else found.as_posix()


def check_dockerfile(context: Context, content: bytes, name: str, wanted: Wanted) -> Dockerfile:
    """Read a Dockerfile, and plan as much as is known here. Raises Failure with each mistake."""
    if len(content) > MAX_BYTES:
        raise Failure(f"{name} has over {MAX_BYTES:,} bytes: is it a Dockerfile?", BAD_VALUE)
    values = dict(it.partition("=")[::2] for it in _build_args(context, wanted) if "=" in it)
    try:
        tree = parse(content, name)
        plan(tree, wanted.target or "", values)
    except DockerfileError as error:
        raise _wrong(error) from None
    for note in tree.notes:
        context.out.note(note.render(color=context.out.color))
    return tree


def _wrong(error: DockerfileError) -> Failure:
    return Failure(str(error), BAD_VALUE)


def _build_args(context: Context, wanted: Wanted) -> tuple[str, ...]:
    """Each with its value: that of ``env``, or of this machine's environment, where it has none."""
    where = Where(context.client.cluster, context.client.user)
    known, _ = environment(wanted.env, os.environ, where)
    found = []
    for argument in wanted.build_args:
        name, equals, _ = argument.partition("=")
        if equals:
            found.append(argument)
        elif name in known:
            found.append(f"{name}={known[name]}")
        elif name in os.environ:
            found.append(f"{name}={os.environ[name]}")
        else:
            context.out.warning(f"--build-arg {name} has no value here: it is left out.")
    return tuple(found)


def _refuse_existing(context: Context, images: Sequence[OwnImage]) -> None:
    for image in images:
        try:
            context.run(context.client.images.digest(image))
        except NotFound:
            continue
        raise Failure(
            f"The image {image} exists already: build another tag, or overwrite it with -F"
            " (--force-overwrite)."
        )


def _first_preset(context: Context) -> str | None:
    from neuro.cli.job.run import default_preset

    return default_preset(context, cluster=None)


# What goes to the storage


@contextmanager
def _sent(
    context: Context, source: _Source, secret_files: Sequence[SecretFile]
) -> Iterator[tuple[list[Volume], tuple[Secret, ...]]]:
    """Have all of it in a folder of the storage as long as the build goes on."""
    mounted = []
    if source.uri is not None:
        mounted.append(Volume(src_storage_uri=str(source.uri), dst_path=CONTEXT, read_only=True))
    files = [(f"secrets/{n}", it.content) for n, it in enumerate(secret_files)]
    if source.outside is not None:
        files.append((DOCKERFILE, source.outside))
    if source.top is None and not files:
        yield mounted, ()
        return
    storage = context.client.storage
    folder = storage.uri(f"{_SENT}/{int(time.time())}-{secrets.token_hex(8)}")
    mounted.append(Volume(src_storage_uri=str(folder), dst_path=SENT, read_only=True))
    try:
        _send(context, folder, source, files)
        paths = [f"{SENT}/secrets/{number}" for number in range(len(secret_files))]
        ids = [it.id for it in secret_files]
        yield mounted, tuple(map(Secret, ids, paths))
    finally:
        _remove(context, folder)


def _send(
    context: Context,
    folder: ResourceURI,
    source: _Source,
    files: Sequence[tuple[str, bytes]],
) -> None:
    storage = context.client.storage
    above = {folder.child(*name.split("/")[:-1]) for name, _ in files}
    if source.top is not None:
        above.add(folder.child("context"))
    for one in above:
        context.run(storage.mkdir(one, parents=True, exist_ok=True))
    for name, content in files:
        context.run(storage.create(folder.child(*name.split("/")), content))
    if source.top is None:
        return
    with sending(context) as progress:
        outcome = context.run(
            storage.upload_items(source.items, folder.child("context"), progress=progress)
        )
    if outcome.failed:
        count = len(outcome.failed)
        what = "1 file was" if count == 1 else f"{count} files were"
        raise Failure(
            f"{what} not sent, so nothing is built. What the build does not need can be left out by"
            " a line in .dockerignore."
        )
    context.out.info(f"Sent {outcome.files} files of {source.top} to {folder}")


@contextmanager
def sending(context: Context) -> Iterator[CommandProgress]:
    """Show how far the sending of a context is; on a terminal as a bar."""
    from neuro.cli.storage.items import Items

    items = Items(context)
    if context.out.is_terminal and not context.out.quiet:
        from neuro.cli.storage.terminal_progress import TerminalProgress

        with TerminalProgress(context.out, items) as shown:
            yield shown
        return
    from neuro.cli.storage.progress import CommandProgress as Plain

    yield Plain(context.out, items)


def _remove(context: Context, folder: ResourceURI) -> None:
    async def remove() -> None:
        async for _ in context.client.storage.remove(folder, recursive=True):
            pass

    try:
        context.run(remove())
    except NotFound:
        pass
    except PlatformError as error:
        context.out.warning(
            f"What was sent for the build is still at {folder} ({error}): `neuro rm -r {folder}`"
            " removes it."
        )


# While it is built


def _watch(context: Context, job: Job, log: int) -> int:
    """Print the job's steps and its log until it is over; its exit code. Ctrl-C kills it."""
    from neuro.cli.job.follow import LogReader, end_of, wait_for_start
    from neuro.cli.job.output import Progress
    from neuro.cli.outage import Outage

    out, outage = context.out, Outage(context.out.note)
    if not out.quiet:
        out.print(f"Job ID: {job.id}")
        out.flush()
    reader = LogReader(context, job.id, outage, descriptor=log)
    progress = Progress(out)
    reader.start()
    try:
        wait_for_start(context, job, progress, stirred=reader.stirred, outage=outage)
        out.flush()
        reader.open()
        return end_of(context, job.id, reader, outage)
    except BaseException:
        progress.end()
        _kill(context, job)
        raise


def _advise(context: Context, job: Job) -> None:
    """Say what to do where the platform ended the build."""
    reason = context.run(context.client.jobs.get(job.id)).history.reason
    for known, advice in _ENDED.items():
        if reason == known:
            context.out.say(advice)


def _kill(context: Context, job: Job) -> None:
    try:
        context.run(context.client.jobs.kill(job.id))
    except PlatformError as error:
        context.out.warning(f"The build goes on ({error}): `neuro kill {job.id}` ends it.")
    else:
        context.out.note(f"\nThe build was stopped: {job.id}.")
