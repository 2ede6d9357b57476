"""A bar for each layer. rich is loaded only for a terminal."""

from __future__ import annotations

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from neuro.cli.image.progress import Lines, short
from neuro.cli.output import Output
from neuro.cli.render.bars import bars

_MOST = 20  # bars at a time: more than that is no picture


def bars_of_layers(out: Output) -> Progress:
    """How large each layer is, and how much of it is there."""
    name = TextColumn("{task.description}", markup=False)
    return bars(out, name, BarColumn(), DownloadColumn(binary_units=True))


class Bars(Lines):
    """Bars for the layers that move; those that are done go as lines above them."""

    def __init__(self, out: Output, progress: Progress) -> None:
        super().__init__(out)
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

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
