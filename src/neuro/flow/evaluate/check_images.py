"""Images that a batch and its actions define: each is built of one thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuro.flow.evaluate.check_graph import Content
    from neuro.flow.syntax import tree
    from neuro.flow.syntax.problems import Report
    from neuro.flow.syntax.types import Value


def check_images(content: Content, report: Report) -> None:
    """An image is built once: what it is built from can only be one thing."""
    first: dict[str, tree.Image] = {}
    for image in _images(content, set()):
        ref = str(image.ref.constant) if image.ref is not None else ""
        if image.context is None or not ref.startswith("image:"):
            continue
        other = first.setdefault(ref, image)
        same = _same(image.context, other.context) and _same(image.dockerfile, other.dockerfile)
        if not same and image.ref is not None and other.ref is not None:
            at = other.ref.at
            report.add(
                f"Image {ref} is defined twice, with different contexts or dockerfiles",
                image.ref.at,
                f"The other definition is at line {at.line} of {at.source.name}.",
            )


def _images(content: Content, seen: set[int]) -> Iterator[tree.Image]:
    if id(content) in seen:
        return
    seen.add(id(content))
    yield from content.images
    for inner in content.called:
        yield from _images(inner, seen)


def _same(one: Value | None, other: Value | None) -> bool:
    """Whether two places can be one: of expressions nobody knows."""
    if one is None or other is None:
        return one is other
    if one.template is not None or other.template is not None:
        return True
    return PurePosixPath(str(one.constant)) == PurePosixPath(str(other.constant))
