"""What a builder does, one step after the other, and what each step depends on."""

from __future__ import annotations

import hashlib

import msgspec

from neuro.dockerfile.image import Image
from neuro.dockerfile.mounts import Mount, Origin
from neuro.dockerfile.paths import join
from neuro.domain.problems import Problem


class BaseImage(msgspec.Struct, frozen=True):
    """An image that a build starts from or takes files of."""

    reference: str
    platform: str


class Files(msgspec.Struct, frozen=True, tag="files"):
    """Files of the context or of a step: ``source`` is a path or a pattern, from the top.

    With ``include`` (``--parents``), what matches below ``source`` keeps its folders;
    ``required`` must be there then.
    """

    origin: Origin
    source: str
    include: str = ""
    required: str = ""


class RemoteFile(msgspec.Struct, frozen=True, tag="url"):
    """What a URL holds, as a file of this name. ``checksum`` is empty where none is given."""

    url: str
    name: str
    checksum: str = ""


class GitTree(msgspec.Struct, frozen=True, tag="git"):
    """A commit of a repository. ``ref`` is empty for its default branch."""

    remote: str
    ref: str = ""
    folder: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True


class InlineFile(msgspec.Struct, frozen=True, tag="inline"):
    """A here-document as a file."""

    name: str
    content: str


Source = Files | RemoteFile | GitTree | InlineFile


class Step(msgspec.Struct, frozen=True, kw_only=True, tag_field="do"):
    """What all steps have.

    ``number`` is the step's place in the plan; ``stage`` the name or the number of its stage;
    ``line`` and ``text`` show it to people. ``below`` is the step whose files it starts with:
    None for none.
    """

    number: int
    stage: str
    line: int
    text: str
    below: int | None = None
    history: str = ""


class Pull(Step, frozen=True, kw_only=True, tag="pull"):
    """The files of an image."""

    image: BaseImage


class Execute(Step, frozen=True, kw_only=True, tag="run"):
    """A command. ``script`` is a file at /dev/pipes that it runs; ``proxies`` never count."""

    argv: tuple[str, ...]
    env: dict[str, str]
    folder: str
    user: str
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    devices: tuple[tuple[str, bool], ...] = ()
    script: InlineFile | None = None
    proxies: dict[str, str] = {}


class CopyFiles(Step, frozen=True, kw_only=True, tag="copy"):
    """Files that are put at ``destination``: in that folder, if it ends with a slash.

    ``is_linked``: the layer does not depend on what is below. ``unpack``: tars are unpacked.
    """

    sources: tuple[Source, ...]
    destination: str
    chown: str = ""
    chmod: str = ""
    is_linked: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    unpack: bool = False


class AddFiles(CopyFiles, frozen=True, kw_only=True, tag="add"):
    """As CopyFiles, from URLs and repositories as well. ``unpack_remote`` is for files of URLs."""

    unpack_remote: bool = False


class MakeFolder(Step, frozen=True, kw_only=True, tag="folder"):
    """WORKDIR's folder, with those above it; it is the user's where it is new."""

    path: str
    user: str


class Metadata(Step, frozen=True, kw_only=True, tag="metadata"):
    """An instruction that changes no files."""


AnyStep = Pull | Execute | CopyFiles | AddFiles | MakeFolder | Metadata


class Plan(msgspec.Struct, frozen=True):
    """All steps that a target needs, each behind those that it depends on.

    ``result`` is the step whose files are the image's, and ``image`` its configuration. ``bases``
    are those of the stages that are needed, by their numbers: another stage, an image, or None for
    scratch. ``hints`` are for images that are not found.
    """

    steps: tuple[AnyStep, ...]
    result: int | None
    image: Image
    notes: tuple[Problem, ...] = ()
    bases: dict[int, int | BaseImage | None] = {}
    hints: dict[str, str] = {}


class ImagesNeeded(msgspec.Struct, frozen=True):
    """Images whose configuration has to be known first. Hints are for those that are not found."""

    images: tuple[BaseImage, ...]
    hints: dict[str, str]


# What the content of a step's files depends on, beside what is written in the Dockerfile.


class StepFiles(msgspec.Struct, frozen=True, tag="step"):
    """All files of a step, or those that ``sources`` and ``excludes`` leave."""

    step: int
    sources: tuple[Files, ...] = ()
    excludes: tuple[str, ...] = ()


class ContextFiles(msgspec.Struct, frozen=True, tag="context"):
    """Files of the build's context."""

    sources: tuple[Files, ...]
    excludes: tuple[str, ...] = ()


CacheInput = StepFiles | ContextFiles | RemoteFile | GitTree | BaseImage


def inputs(step: AnyStep) -> tuple[CacheInput, ...]:
    """What else than its own text decides a step's files: with ``definition``, its cache key."""
    found: list[CacheInput] = []
    if isinstance(step, Pull):
        return (step.image,)
    if step.below is not None and not (isinstance(step, CopyFiles) and step.is_linked):
        found.append(StepFiles(step.below))
    if isinstance(step, Execute):
        for mount in step.mounts:
            if mount.origin != "empty":
                found += _files((Files(mount.origin, mount.source),), ())
    elif isinstance(step, CopyFiles):
        files = tuple(source for source in step.sources if isinstance(source, Files))
        found += _files(files, step.excludes)
        found += [source for source in step.sources if isinstance(source, RemoteFile | GitTree)]
    return tuple(found)


def _files(files: tuple[Files, ...], excludes: tuple[str, ...]) -> list[CacheInput]:
    origins = dict.fromkeys(one.origin for one in files if one.origin != "empty")
    found: list[CacheInput] = []
    for origin in origins:
        of_it = tuple(one for one in files if one.origin == origin)
        if isinstance(origin, int):
            found.append(StepFiles(origin, of_it, excludes))
        else:
            found.append(ContextFiles(of_it, excludes))
    return found


def context_paths(plan: Plan) -> tuple[str, ...]:
    """The paths and patterns of the context that a plan takes files of: all of it is just ``/``.

    What is not below them need not be sent, nor looked at.
    """
    found = {
        join("/", files.source, files.include)
        for step in plan.steps
        for one in inputs(step)
        if isinstance(one, ContextFiles)
        for files in one.sources
    }
    return ("/",) if "/" in found else tuple(sorted(found))


def needs(step: AnyStep) -> frozenset[int]:
    """The steps that have to be done first; those that need nothing of each other go at once."""
    of_inputs = {one.step for one in inputs(step) if isinstance(one, StepFiles)}
    return frozenset(of_inputs | ({step.below} if step.below is not None else set()))


def definition(step: AnyStep) -> str:
    """A digest of what is written in the Dockerfile, and of the arguments that count.

    The step's place, its look and the numbers of other steps are not in it: what these stand for
    is in ``inputs``, in the same order. Nor are proxies, secrets and agents.
    """
    plain = msgspec.to_builtins(step)
    for name in ("number", "stage", "line", "text", "below", "history", "proxies", "image"):
        plain.pop(name, None)
    if isinstance(step, CopyFiles):
        plain["sources"] = [
            {**msgspec.to_builtins(one), "origin": _kind_of_origin(one)} for one in step.sources
        ]
    elif isinstance(step, Execute):
        plain["mounts"] = [
            {**msgspec.to_builtins(one), "origin": _kind_of_origin(one)}
            for one in step.mounts
            if one.kind not in ("secret", "ssh")
        ]
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _kind_of_origin(of: Source | Mount) -> str:
    origin = getattr(of, "origin", "empty")
    return "step" if isinstance(origin, int) else str(origin)
