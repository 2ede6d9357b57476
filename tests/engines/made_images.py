"""Images for tests of the sandbox: folders that are layers already, by the names of the images."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache

from neuro.engines.base import PullCredentials
from neuro.engines.images.composing import Base
from neuro.engines.images.manifests import ImageConfig
from neuro.engines.images.reach import OUTSIDE
from neuro.engines.images.stopping import Stop
from neuro.engines.sandbox import layout
from neuro.engines.sandbox.images import ImageRefused, Root

_PLACE = "NEURO_TESTS_USERLAND"


class MadeImages:
    """Images that are here, each with its root; ``every`` is what all others are."""

    def __init__(self, every: Root | None = None, **roots: Root) -> None:
        self.reach = OUTSIDE
        self.roots = roots
        self._every = every

    def open(self) -> None:
        pass

    def tidy(self) -> None:
        pass

    def ready(
        self,
        reference: str,
        credentials: PullCredentials | None,
        told: Callable[[float], None],
        stop: Stop,
    ) -> Root:
        root = self.roots.get(reference, self._every)
        if root is None:
            raise ImageRefused(f"there is no image {reference}")
        return root

    def why_away(self, registry: str) -> str | None:
        return None

    def base(self, grant: str) -> Base | None:
        return None


@cache
def userland() -> Root:
    """Some programs of this machine, and its Python, in one layer that all tests have in common."""
    place = os.environ.get(_PLACE)
    if place is None:
        place = tempfile.mkdtemp(prefix="neuro-userland-")
        atexit.register(layout.remove_tree, place)
        writer = [sys.executable, "-m", "tests.engines.docker_image"]
        with subprocess.Popen(writer, stdout=subprocess.PIPE) as written:
            unpack = ["tar", "-x", "--same-permissions", "-C", place]
            subprocess.run(unpack, stdin=written.stdout, check=True)
        assert written.returncode == 0
        os.environ[_PLACE] = place  # for engines in other processes
    return Root((place,), ImageConfig(command=("bash",)))
