"""A bar for each layer. rich is loaded only for a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from neuro.cli.image.progress import Lines, short
from neuro.cli.output import Output

_MOST = 20  # bars at a time: more than that is no picture


class Bars(Lines):
    """Bars for the layers that move; those that are done go as lines above them."""

    def __init__(self, out: Output) -> None:
        super().__init__(out)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            console=Console(stderr=True, no_color=not out.color),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def moved(self, part: str, done: int, size: int) -> None:
        with self._lock:
            task = self._tasks.get(part)
            if task is None:
                if len(self._tasks) >= _MOST:
                    return
                task = self._tasks[part] = self._progress.add_task(short(part), total=size)
            self._progress.update(task, completed=done, total=size)

    def ended(self, part: str, what: str) -> None:
        with self._lock:
            task = self._tasks.pop(part, None)
            if task is not None:
                self._progress.remove_task(task)
        super().ended(part, what)
