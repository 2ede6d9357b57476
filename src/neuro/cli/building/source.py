"""What an image is built of: a Dockerfile, and a context. Mistakes are found before it is sent."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from neuro.cli.building.wanted import Wanted
from neuro.cli.context import Context
from neuro.cli.failures import BAD_VALUE, Failure
from neuro.client.build_context import Item, context_items, ignored_in
from neuro.client.builds import CONTEXT, DOCKERFILE, SENT
from neuro.client.job_request import Where, environment
from neuro.client.kept_contexts import context_key
from neuro.dockerfile.ignore_files import names_of_ignore_file
from neuro.domain.errors import NotFound
from neuro.domain.uris import ResourceURI

if TYPE_CHECKING:
    from neuro.dockerfile.ignore import Pattern
    from neuro.dockerfile.tree import DockerfileError

_STORAGE = "storage:"


class Unchecked(msgspec.Struct, frozen=True):
    """A Dockerfile that has to be read, unless one of this ``mark`` was found right before."""

    content: bytes
    name: str
    mark: str


class Source(msgspec.Struct, frozen=True):
    """Where the context is, and what of it goes to the storage.

    ``place`` and ``dockerfile`` are as in ``Build``. ``outside`` are files that are not in the
    context, by their names: a Dockerfile, and its own ignore file. ``uri`` is that of a context in
    the storage, ``top`` a local one, whose files stay there for the next build with its ``key``.
    ``unchecked`` is the Dockerfile where it is one of these.
    """

    place: str
    dockerfile: str
    top: Path | None = None
    items: tuple[Item, ...] = ()
    uri: ResourceURI | None = None
    outside: tuple[tuple[str, bytes], ...] = ()
    key: str = ""
    unchecked: Unchecked | None = None


def source_of(context: Context, wanted: Wanted) -> Source:
    """Find it all. Raises Failure for a Dockerfile that is wrong, unless it is ``unchecked``."""
    if wanted.context.startswith(_STORAGE):
        return _in_storage(context, wanted)
    return _on_this_machine(context, wanted)


def _on_this_machine(context: Context, wanted: Wanted) -> Source:
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
    if inside is None:
        check_dockerfile(context, content, shown, wanted)
    place = f"{SENT}/context"
    beside = path.absolute()
    patterns, ignore_file = _ignored_in(top, inside or str(beside))
    always = {it for it in (inside, ignore_file) if it is not None}
    items = tuple(context_items(top, patterns, always))
    key = context_key(top, ignore_file)
    if inside is not None:
        # A target that there is not is the likeliest mistake in what is said besides the file.
        mark = hashlib.sha256(f"{wanted.target or ''}\0".encode() + content).hexdigest()
        unchecked = Unchecked(content, shown, mark)
        return Source(place, inside, top, items, key=key, unchecked=unchecked)
    outside = [(DOCKERFILE, content)]
    if ignore_file is not None and Path(ignore_file).is_absolute():
        own, _ = names_of_ignore_file(DOCKERFILE)
        outside.append((own, Path(ignore_file).read_bytes()))
    return Source(place, f"{SENT}/{DOCKERFILE}", top, items, outside=tuple(outside), key=key)


def _ignored_in(top: Path, dockerfile: str) -> tuple[tuple[Pattern, ...], str | None]:
    try:
        return ignored_in(top, dockerfile)
    except Exception as error:
        from neuro.dockerfile.tree import DockerfileError  # only what is wrong needs it

        if isinstance(error, DockerfileError):
            raise _wrong(error) from None
        raise


def _in_storage(context: Context, wanted: Wanted) -> Source:
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
    return Source(CONTEXT, name, uri=uri)


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


def check_dockerfile(context: Context, content: bytes, name: str, wanted: Wanted) -> None:
    """Read a Dockerfile, and plan as much as is known here. Raises Failure with each mistake."""
    # A build whose Dockerfile has not changed does without these, and is some 40 ms shorter.
    from neuro.dockerfile.parser import MAX_BYTES, parse
    from neuro.dockerfile.plan import plan
    from neuro.dockerfile.tree import DockerfileError

    if len(content) > MAX_BYTES:
        raise Failure(f"{name} has over {MAX_BYTES:,} bytes: is it a Dockerfile?", BAD_VALUE)
    values = dict(it.partition("=")[::2] for it in build_arguments(context, wanted) if "=" in it)
    try:
        tree = parse(content, name)
        plan(tree, wanted.target or "", values)
    except DockerfileError as error:
        raise _wrong(error) from None
    for note in tree.notes:
        context.out.note(note.render(color=context.out.color))


def _wrong(error: DockerfileError) -> Failure:
    return Failure(str(error), BAD_VALUE)


def build_arguments(context: Context, wanted: Wanted) -> tuple[str, ...]:
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
