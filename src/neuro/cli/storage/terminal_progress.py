"""A line that moves: bytes, rate, files, time left. rich is loaded only for a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from neuro.cli.output import Output
from neuro.cli.storage.items import Items
from neuro.cli.storage.progress import CommandProgress


class TerminalProgress(CommandProgress):
    """One bar over all that the command copies; what is said goes above it."""

    def __init__(self, out: Output, items: Items) -> None:
        super().__init__(out, items)
        self._bar = Progress(
            TextColumn("{task.fields[files]}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, no_color=not out.color),
            transient=True,
        )
        self._task = self._bar.add_task("", total=0, files="")
        self._expected = self._total = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def expect(self, files: int, size: int) -> None:
        self._expected += files
        self._total += size
        self._bar.update(self._task, total=self._total)
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
