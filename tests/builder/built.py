"""Builds in this process, and what is in the tree that comes of one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuro.builder import files
from neuro.builder.arguments import Secret
from neuro.builder.bases import Bases
from neuro.builder.building import Building
from neuro.builder.cache import Cache
from neuro.builder.credentials import Credentials
from neuro.builder.exporting import OfLayer, composed
from neuro.builder.reporting import Report
from neuro.builder.running import Running
from neuro.builder.sources import ANYWHERE
from neuro.builder.trees import Tree
from neuro.builder.views import View
from neuro.dockerfile.image import Image
from neuro.dockerfile.plan import plan
from neuro.dockerfile.steps import Plan
from neuro.engines.images.reach import OUTSIDE

Entry = tuple[object, ...]


@dataclass
class Built:
    tree: Tree
    image: Image
    output: str

    def files(self) -> dict[str, Entry]:
        with self.tree.view() as view:
            return listing(view)

    def config(self) -> dict[str, Any]:
        """The image's configuration, as it is pushed."""
        layers = []
        with tempfile.TemporaryDirectory() as place:
            for layer in self.tree.layers:
                source = OfLayer(layer, place)
                layers.append((layer, source.packed()))
                source.close()
        made = composed(self.image, self.tree.base, layers)
        return json.loads(made.config)  # type: ignore[no-any-return]


@contextmanager
def build(
    text: str,
    context: Path,
    cache: Path,
    *,
    ignore: str = "",
    target: str = "",
    arguments: dict[str, str] | None = None,
    anew: bool = False,
    secrets: dict[str, Secret] | None = None,
    out: io.StringIO | None = None,
) -> Iterator[Built]:
    """Build a Dockerfile whose bases are nothing, or the machine."""
    made_of = cache / "dockerfiles"
    made_of.mkdir(parents=True, exist_ok=True)
    (made_of / "Dockerfile").write_text(text)
    (made_of / "Dockerfile.dockerignore").write_text(ignore)
    kept = Cache(str(cache / "cache"))
    kept.open()
    out = out or io.StringIO()
    report = Report(out, clock=lambda: 0.0)  # which no test waits for
    tree, path = files.dockerfile(str(context), str(made_of / "Dockerfile"), ANYWHERE)
    with ExitStack() as stack:
        seen = stack.enter_context(files.context(str(context), path, ANYWHERE))
        bases = stack.enter_context(Bases(kept, Credentials(), OUTSIDE, None, report.write))
        made = plan(tree, target, arguments)
        assert isinstance(made, Plan)
        running = Running(kept, seen, secrets or {})
        building = Building(made, kept, bases, seen, running, report, anew=anew)
        stack.callback(building.close)
        result = building.run()
        report.flush()
        yield Built(result, made.image, out.getvalue())


def listing(view: View) -> dict[str, Entry]:
    """Kind, mode, owner, and content or target of all that is in a tree."""
    found: dict[str, Entry] = {}
    for entry in view.entries():
        one = view.find(entry.path)
        assert one is not None
        content = ""
        if one.is_link:
            content = view.read_link(one)
        elif one.is_file:
            fd = view.open(one)
            with os.fdopen(fd, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()[:12]
        mode = 0 if one.is_link else stat.S_IMODE(one.status.st_mode)
        kind = stat.S_IFMT(one.status.st_mode)
        found[entry.path] = (oct(kind), oct(mode), view.owner(one), content)
    return found
