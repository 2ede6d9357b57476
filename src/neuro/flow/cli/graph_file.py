"""A graph in a file: drawn here, for Graphviz, or, as a PNG, laid out by it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from neuro.domain.bakes import Graphs, TaskStatus
from neuro.flow.cli.context import FlowContext
from neuro.flow.cli.failures import Failed

SOURCES = (".dot", ".gv")
DRAWN = (".pdf", ".svg", ".png")

_MISSING = """\
Graphviz is not installed, and it draws {name}. Install it with `apt install graphviz`, or on a
Mac with `brew install graphviz`; `{drawn}` can be drawn without it."""


class GraphFile(NamedTuple):
    """Where to, and as what."""

    path: Path
    kind: str  # "dot", or a format of Graphviz

    @classmethod
    def of(cls, given: str | None, kind: str | None, stem: str) -> Self:
        """The file's name decides, unless ``kind`` does. Raises Failed for an unknown ending."""
        if given is None:
            return cls(Path(f"{stem}.gv.pdf" if kind == "pdf" else f"{stem}.gv"), kind or "dot")
        path = Path(given)
        if kind is not None:
            return cls(path, kind)
        ending = path.suffix.lower()
        if ending in SOURCES:
            return cls(path, "dot")
        if ending in DRAWN:
            return cls(path, ending[1:])
        raise Failed(
            f"A graph cannot be written to {given}: let the name end with one of"
            f" {', '.join((*SOURCES, *DRAWN))}.",
            2,
        )


def write_graph(
    context: FlowContext,
    file: GraphFile,
    batch: str,
    graphs: Graphs,
    statuses: Mapping[str, TaskStatus],
    times: Mapping[str, str],
    *,
    view: bool = False,
) -> None:
    """Write the file and say so; ``view`` opens it too. Raises Failed for a PNG without Graphviz.

    ``times`` are the durations to show with tasks.
    """
    if file.kind in ("svg", "pdf"):
        from neuro.flow.batch.picture import lay_out
        from neuro.flow.batch.picture_files import NOTE, latin, pdf, svg

        if file.kind == "svg":
            drawn = svg(lay_out(batch, graphs, statuses, times))
        else:
            drawn = pdf(lay_out(batch, graphs, statuses, times, spell=latin, note=NOTE))
        file.path.write_bytes(drawn)
    else:
        from neuro.flow.batch.draw import dot

        text = dot(batch, graphs, statuses, times)
        if file.kind == "dot":
            file.path.write_text(text, "utf-8")
        else:
            _lay_out(text, file)
    context.out.print(str(file.path) if context.out.quiet else f"Saved the graph as {file.path}")
    if view:
        import click

        context.out.flush()
        click.launch(str(file.path))


def _lay_out(text: str, file: GraphFile) -> None:
    path = file.path.absolute()  # A name may begin with a dash.
    try:
        done = subprocess.run(
            ["dot", f"-T{file.kind}", "-o", str(path)],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        drawn = file.path.with_suffix(".svg")
        raise Failed(_MISSING.format(name=file.path, drawn=drawn)) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Failed(f"Graphviz could not draw {file.path}: {said}")
