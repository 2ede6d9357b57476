"""What an installation brings with it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Result, mb

ROOT = Path(__file__).parent.parent


def run() -> Iterator[Result]:
    """The command line alone, then with the server."""
    for what, extra, budget in (
        ("install: command line", "", "≤ 20 packages, 40 MB"),
        ("install: with the server extra", "[server]", "≤ 40 packages, 100 MB"),
    ):
        with tempfile.TemporaryDirectory(prefix="neuro-bench-") as folder:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
            site = next(Path(folder).glob("lib/python*/site-packages"))
            subprocess.run(
                [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install",
                 "--disable-pip-version-check", "--quiet", "--no-compile", f"{ROOT}{extra}"],
                check=True,
            )  # fmt: skip
            packages = len(list(site.glob("*.dist-info")))
            size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        yield Result(what, f"{packages} packages, {mb(size)}", budget)
