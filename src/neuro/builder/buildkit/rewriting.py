"""The Dockerfile that the daemon gets: the person's own, with other names for images.

Every image that the build needs is named by its digest, at the registry's host as the daemon knows
it: so it is the very image that its registry gave to whoever builds. Lines stay where they are.
Directives go: one could have the daemon load another program that reads the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from neuro.builder.buildkit.fitting import Unfit
from neuro.dockerfile.lines import DEFAULT_ESCAPE, SPACES
from neuro.dockerfile.stages import SCRATCH
from neuro.dockerfile.steps import BaseImage
from neuro.dockerfile.tree import Copy, Dockerfile, Run, Stage
from neuro.domain.images import with_tag
from neuro.domain.problems import Position

_FLAG = "--from="
_Change = tuple[int, str, str]  # where in the text, what is there, and what is to be


def rewritten(
    tree: Dockerfile,
    bases: Mapping[int, int | BaseImage | None],
    named: Callable[[BaseImage], str],
    images: Mapping[BaseImage, object],
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
    return _without_directives("".join(pieces), tree.escape)


def _changes(
    tree: Dockerfile,
    bases: Mapping[int, int | BaseImage | None],
    named: Callable[[BaseImage], str],
    images: Mapping[BaseImage, object],
) -> Iterator[_Change]:
    by_name = {image.reference: image for image in images}
    for stage in tree.stages:
        word = stage.begin.base
        start = _index(word.at)
        if stage.index not in bases:
            # Nobody asks for it, and its base was not asked for either.
            yield start, word.text, SCRATCH
            continue
        base = bases[stage.index]
        if isinstance(base, BaseImage):
            yield start, word.text, named(base)
        for name, begins, is_flag in _taken(stage):
            image = by_name.get(with_tag(name))
            if image is None or _is_stage(name, tree):
                continue
            shown = f"{_FLAG}{name}" if is_flag else f"from={name}"
            found = tree.source.text.find(shown, begins)
            line_end = tree.source.text.find("\n", begins)
            if found < 0 or 0 <= line_end < found:
                raise Unfit(f"the name of the image {name} is not written in one piece")
            yield found, shown, shown.removesuffix(name) + named(image)


def _taken(stage: Stage) -> Iterator[tuple[str, int, bool]]:
    """What an instruction of the stage takes files of, and where to look for the name."""
    for one in stage.instructions:
        if isinstance(one, Copy) and one.origin is not None:
            yield one.origin.text, _line_of(one.origin.at), True
        elif isinstance(one, Run):
            for mount in one.mounts:
                if mount.origin:
                    yield mount.origin, _index(mount.at), False


def _is_stage(name: str, tree: Dockerfile) -> bool:
    return name == SCRATCH or name.isdigit() or any(it.name == name.lower() for it in tree.stages)


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
