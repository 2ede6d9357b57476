"""What a step leaves: a tree of files, as layers above a base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from neuro.builder.bases import Base
from neuro.builder.cache import HeldLayer
from neuro.builder.views import LayerFolder, View

_MOUNTS = "/proc/self/mountinfo"


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
        """All layers' folders, the lowest first."""
        return (*((_userland(),) if self.on_host else ()), *self.above())

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


def _userland() -> LayerFolder:
    """The root that this program has, less what is mounted there for the job alone."""
    hidden = set()
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            kind = fields[fields.index("-") + 1]
            place = fields[4]
            if kind != "overlay" and place.count("/") == 1 and place != "/":
                hidden.add(place[1:])
    return LayerFolder(
        "/", hidden=frozenset(hidden - {"etc", "usr", "bin", "lib", "lib64", "sbin"})
    )


EMPTY = Tree()
