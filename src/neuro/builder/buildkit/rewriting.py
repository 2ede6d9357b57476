"""The Dockerfile that the daemon gets: the person's own, with other names for images.

Every image that the build needs is named by its digest, at the registry's host as the daemon knows
it: so it is the very image that its registry gave to whoever builds. Lines stay where they are, and
of stages that nobody needs nothing but the name stays. Directives go: one could have the daemon
load another program that reads the file.

The result is read again, and every name of an image in it must be one that was put there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from neuro.builder.buildkit import pinning
from neuro.builder.buildkit.fitting import Unfit
from neuro.dockerfile.image import Image
from neuro.dockerfile.lines import DEFAULT_ESCAPE, SPACES
from neuro.dockerfile.stages import SCRATCH
from neuro.dockerfile.steps import BaseImage
from neuro.dockerfile.tree import Copy, Dockerfile, Run, Stage
from neuro.dockerfile.values import go_integer
from neuro.domain.images import with_tag
from neuro.domain.problems import Position

_FLAG = "--from="
_Change = tuple[int, str, str]  # where in the text, what is there, and what is to be


def rewritten(
    tree: Dockerfile,
    bases: Mapping[int, int | BaseImage | None],
    named: Callable[[BaseImage], str],
    images: Mapping[BaseImage, Image],
) -> str:
    """The text for the daemon. Raises Unfit.

    ``bases`` are those of the stages that are needed: see ``Plan``. ``named`` is the daemon's name
    of an image, one of ``images``.
    """
    text = tree.source.text
    changes = sorted(_changes(tree, bases, named, images))
    pieces, at = [], 0
    for start, was, new in changes:
        if start < at or text[start : start + len(was)] != was:
            raise Unfit(f"the name of the image {was} is not written in one piece")
        pieces += [text[at:start], new]
        at = start + len(was)
    pieces.append(text[at:])
    made = _without_directives("".join(pieces), tree.escape)
    begins = {}
    for stage in tree.stages:
        base = bases.get(stage.index)
        begins[stage.index] = named(base) if isinstance(base, BaseImage) else _own(tree, base)
    pinned = {named(image) for image in images}
    triggers = [
        trigger
        for base in bases.values()
        if isinstance(base, BaseImage)
        for trigger in images[base].config.on_build or ()
    ]
    pinning.check(made, begins, bases, pinned, triggers)
    return made


def _own(tree: Dockerfile, base: int | None) -> str:
    return SCRATCH if base is None else tree.stages[base].name


def _changes(
    tree: Dockerfile,
    bases: Mapping[int, int | BaseImage | None],
    named: Callable[[BaseImage], str],
    images: Mapping[BaseImage, Image],
) -> Iterator[_Change]:
    by_name = {image.reference: image for image in images}
    for stage in tree.stages:
        word = stage.begin.base
        start = _index(word.at)
        if stage.index not in bases:
            # Nobody asks for it, its base was not asked for either, and nobody has looked at it.
            yield _emptied(tree, stage)
            continue
        base = bases[stage.index]
        yield start, word.text, named(base) if isinstance(base, BaseImage) else _own(tree, base)
        for name, begins, is_flag in _taken(stage):
            image = by_name.get(with_tag(name))
            if image is None or _is_stage(name, tree, numbers=is_flag):
                continue
            shown = f"{_FLAG}{name}" if is_flag else f"from={name}"
            found = tree.source.text.find(shown, begins)
            line_end = tree.source.text.find("\n", begins)
            if found < 0 or 0 <= line_end < found:
                raise Unfit(f"the name of the image {name} is not written in one piece")
            yield found, shown, shown.removesuffix(name) + named(image)


def _emptied(tree: Dockerfile, stage: Stage) -> _Change:
    """The stage without anything in it, in as many lines."""
    text = tree.source.text
    start = _line_start(text, stage)
    behind = tree.stages[stage.index + 1 : stage.index + 2]
    was = text[start : _line_start(text, behind[0]) if behind else len(text)]
    name = f" AS {stage.begin.name.text}" if stage.begin.name else ""
    return start, was, f"FROM {SCRATCH}{name}" + "\n" * was.count("\n")


def _line_start(text: str, stage: Stage) -> int:
    return text.rfind("\n", 0, _index(stage.begin.at)) + 1


def _taken(stage: Stage) -> Iterator[tuple[str, int, bool]]:
    """What an instruction of the stage takes files of, and where to look for the name."""
    for one in stage.instructions:
        if isinstance(one, Copy) and one.origin is not None:
            yield one.origin.text, _line_of(one.origin.at), True
        elif isinstance(one, Run):
            for mount in one.mounts:
                if mount.origin:
                    yield mount.origin, _index(mount.at), False


def _is_stage(name: str, tree: Dockerfile, *, numbers: bool) -> bool:
    is_number = numbers and go_integer(name) is not None
    return name == SCRATCH or is_number or any(it.name == name.lower() for it in tree.stages)


def _index(at: Position) -> int:
    return at.source.index(at)


def _line_of(at: Position) -> int:
    return at.source.index(at._replace(column=1))


def _without_directives(text: str, escape: str) -> str:
    """The text with nothing in the comments at its top but what ``escape`` is, if it is unusual."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        bare = line.strip(SPACES)
        if bare and not bare.startswith("#"):
            break
        lines[number] = "#"
    if escape != DEFAULT_ESCAPE:
        lines[0] = f"# escape={escape}"
    return "\n".join(lines)
