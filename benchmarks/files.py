"""Storage: one large file, many small ones, beside ``cp`` and the original's client."""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness import Result, logged_in, neuro_command, paired_seconds, seconds, server
from benchmarks.peers import reference_client

GIB = 1 << 30
SMALL_FILES = 10_000


def run() -> Iterator[Result]:
    """All of it."""
    with server() as running, tempfile.TemporaryDirectory(prefix="neuro-bench-") as name:
        folder = Path(name)
        env = logged_in(running, folder)

        def neuro(*words: str) -> None:
            subprocess.run([*neuro_command(), *words], env=env, check=True,
                           stdout=subprocess.DEVNULL)  # fmt: skip

        yield from _large(folder, neuro)
        source = _make_tree(folder / "small")
        # To a new place each time: a file system that has just deleted thousands of files takes
        # seconds to make new ones, whoever makes them.
        turn = itertools.count()
        with reference_client(running) as theirs:
            mine, peer, ratio = paired_seconds(
                lambda: neuro("cp", "-r", str(source), f"storage:ours-{next(turn)}"),
                lambda: theirs("cp", "-r", str(source), f"storage:theirs-{next(turn)}"),
                3,
                before=os.sync,
            )
        copies = [
            seconds(partial(shutil.copytree, source, folder / f"copy-{number}"))
            for number in range(3)
        ]
        copy = statistics.median(copies)
    yield Result(
        f"`neuro cp -r` of {SMALL_FILES:,} files of 1 KB up",
        f"{1 / ratio:.1f} × neuro-cli 22.7.1",
        "≥ 10 ×",
        f"{mine:.2f} s beside {peer:.1f} s; `cp -r` takes {copy:.2f} s",
    )


def _make_tree(folder: Path) -> Path:
    for number in range(SMALL_FILES):
        path = folder / f"{number // 100:03d}" / f"{number:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1024))
    return folder


def _large(folder: Path, neuro: Callable[..., None]) -> Iterator[Result]:
    big = folder / "big"
    with big.open("wb") as stream:
        block = os.urandom(1 << 20)
        for _ in range(GIB >> 20):
            stream.write(block)

    turn = itertools.count()

    def plain() -> None:
        with big.open("rb") as source, (folder / f"plain-{next(turn)}").open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())

    def up() -> None:
        neuro("cp", str(big), f"storage:big-{next(turn)}")

    def down() -> None:
        neuro("cp", "storage:big", str(folder / f"back-{next(turn)}"))

    neuro("cp", str(big), "storage:big")
    for what, action in (("up", up), ("down", down)):
        # What was written before must not be written while the next one is timed.
        mine, theirs, ratio = paired_seconds(action, plain, 5, before=os.sync)
        yield Result(
            f"`neuro cp` of 1 GiB {what}",
            f"{1 / ratio:.2f} of cp + fsync",
            "≥ 0.5",
            f"{mine:.1f} s beside {theirs:.1f} s",
        )
