"""A progress bar that reads well on a terminal and in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

BAR = 20
PARTS = " ▏▎▍▌▋▊▉█"  # eighths of a cell
REDRAW_SECONDS = 0.1


class Progress:
    """``Epoch  1/40:  14%|██▊       | 201/1437 [00:00<00:01, 1240 it/s] loss 0.9``.

    On a terminal one line is drawn over and over; in a file or a pipe each bar is one line, written
    when it is full, because a log of carriage returns is of no use to anybody.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self._done, self._note = 0, ""
        self._began = time.monotonic()
        self._drawn = 0.0
        self._live = sys.stdout.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        print(("\r" if self._live else "") + self._line(), flush=True)

    def advance(self, count: int, note: str = "") -> None:
        """``count`` more are done; ``note`` is shown after the bar."""
        self._done, self._note = self._done + count, note
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            print("\r" + self._line(), end="", flush=True)

    def _line(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-6)
        share = self._done / self.total
        rate = self._done / seconds
        left = (self.total - self._done) / rate if rate else 0.0
        return (
            f"{self.title}: {share:4.0%}|{bar(share)}| {self._done}/{self.total} "
            f"[{clock(seconds)}<{clock(left)}, {rate:.0f} it/s] {self._note}"
        )


def bar(share: float) -> str:
    """A bar of ``BAR`` cells, filled to ``share``."""
    eighths = round(share * BAR * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (PARTS[rest] if rest else "")).ljust(BAR)


def clock(seconds: float) -> str:
    """``75`` as ``01:15``."""
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
