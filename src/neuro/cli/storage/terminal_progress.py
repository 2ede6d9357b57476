"""A line that moves: bytes, rate, files, time left. rich is loaded only for a terminal."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from neuro.cli.output import Output
from neuro.cli.render.bars import bars
from neuro.cli.storage.items import Items
from neuro.cli.storage.progress import CommandProgress


def bar_of_files(out: Output) -> Progress:
    """How many files and bytes there are, and how fast they go."""
    return bars(
        out,
        TextColumn("{task.fields[files]}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )


class TerminalProgress(CommandProgress):
    """One bar over all that the command copies; what is said goes above it."""

    def __init__(self, out: Output, items: Items, bar: Progress) -> None:
        super().__init__(out, items)
        self._bar = bar
        # Before it is known how much there is, a bar says nothing.
        self._task = self._bar.add_task("", total=0, files="", visible=False)
        self._expected = self._total = 0

    def expect(self, files: int, size: int) -> None:
        self._expected += files
        self._total += size
        self._bar.update(self._task, total=self._total, visible=True)
        self._tell_files()

    def moved(self, count: int) -> None:
        super().moved(count)
        self._bar.advance(self._task, count)

    def copied(self, source: str, target: str) -> None:
        super().copied(source, target)
        self._tell_files()

    def _tell_files(self) -> None:
        noun = "file" if self._expected == 1 else "files"
        self._bar.update(self._task, files=f"{self._files}/{self._expected} {noun}")
