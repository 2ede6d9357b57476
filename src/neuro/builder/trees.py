"""What a step leaves: a tree of files, as layers above a base."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from neuro.builder.bases import Base
from neuro.builder.cache import HeldLayer
from neuro.builder.faults import BuildFault
from neuro.builder.views import LayerFolder, View
from neuro.engines.sandbox import nesting


@dataclass(frozen=True)
class Tree:
    """``key`` names all of it: two trees with one key are the same. ``base`` is None of scratch."""

    key: str = "scratch"
    base: Base | None = None
    layers: tuple[HeldLayer, ...] = ()
    tell: Callable[[float], None] = field(default=lambda share: None, compare=False)

    @property
    def on_host(self) -> bool:
        """Whether the machine's userland is its lowest layer."""
        return self.base is not None and self.base.on_host

    def above(self) -> tuple[LayerFolder, ...]:
        """The layers' folders, the lowest first, without the machine's userland."""
        base = self.base.layers(self.tell) if self.base is not None else ()
        return (*base, *(one.folder for one in self.layers))

    def folders(self) -> tuple[LayerFolder, ...]:
        """All layers' folders, the lowest first. Raises BuildFault."""
        return (*(_userland() if self.on_host else ()), *self.above())

    def paths(self) -> tuple[Path, ...]:
        """The folders as a step's mounts name them."""
        return tuple(Path(one.files) for one in self.above())

    def view(self) -> View:
        """All of it, to be closed. Raises OSError, BuildFault."""
        return View(self.folders())

    def plus(self, layer: HeldLayer, *, is_linked: bool = False) -> Tree:
        """With a layer more. ``is_linked``: that does not depend on what is below."""
        key = layer.identity
        if is_linked:
            key = hashlib.sha256(f"{self.key} {layer.identity}".encode()).hexdigest()
        return Tree(key, self.base, (*self.layers, layer), self.tell)


def _userland() -> tuple[LayerFolder, ...]:
    """The machine's userland, the lowest layer first, as a step's root has it.

    Never by way of this program's own root: passwords, secrets and the cache are there, too.
    """
    given = nesting.read()
    if given is None:
        raise BuildFault(
            "The machine's userland can be had in a job that builds images, and not here.",
            "Start from an image of a registry.",
        )
    if given.covered:
        raise BuildFault(
            "No image can be made of this machine's userland, because data of the platform lies in"
            f" the middle of it ({given.covered[0]}).",
            "Start from an image of a registry.",
        )
    found = [
        LayerFolder(f"{nesting.PLACE}/{one}", at=path.strip("/"))
        for path, lower in zip(given.overlays, given.lower, strict=True)
        for one in reversed(lower)
    ]
    shown = [LayerFolder(os.path.realpath(one), at=one.strip("/")) for one in given.read_only]
    return (*found, *shown)


EMPTY = Tree()
