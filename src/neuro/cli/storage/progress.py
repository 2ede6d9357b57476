"""What a copy says while it goes, each file with ``-v`` and every failure, and at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neuro.cli.context import Context
from neuro.cli.output import Output
from neuro.cli.render.sizes import gnu_size
from neuro.cli.storage.items import Items
from neuro.client.storage import Failed, Outcome, Silent
from neuro.domain.printable import printable


@contextmanager
def showing(context: Context, items: Items, *, wanted: bool = True) -> Iterator[CommandProgress]:
    """Show how far a copy is: as a bar, if that is wanted and there is a terminal."""
    if wanted and context.out.is_terminal and not context.out.quiet:
        from neuro.cli.storage.terminal_progress import TerminalProgress, bar_of_files

        with bar_of_files(context.out) as bar:
            yield TerminalProgress(context.out, items, bar)
        return
    yield CommandProgress(context.out, items)


class CommandProgress(Silent):
    """Progress without a terminal. The SDK calls it from several threads, one at a time."""

    def __init__(self, out: Output, items: Items) -> None:
        self.out = out
        self._items = items
        self._files = self._size = self._unchanged = self._kept = self._skipped = 0

    def moved(self, count: int) -> None:
        self._size += count

    def copied(self, source: str, target: str) -> None:
        self._files += 1
        if self.out.verbose:
            self.out.print(f"{printable(source)} -> {printable(target)}")

    def skipped(self, source: str, why: str) -> None:
        self._skipped += 1
        self.out.warning(f"{printable(source)} is left out: {printable(why)}")

    def failed(self, failure: Failed) -> None:
        self._items.failed(f"copy '{failure.source}' to '{failure.target}'", failure.error)

    def done(self, outcome: Outcome | bool) -> None:
        """Count what one call of the SDK found to be there already."""
        if isinstance(outcome, Outcome):
            self._unchanged += outcome.unchanged
            self._kept += outcome.kept
        elif not outcome:
            self._unchanged += 1

    def summary(self, destination: str) -> str:
        """What was copied: ``Copied 3 files (1.2M) to storage://…, 5 up to date``."""
        noun = "file" if self._files == 1 else "files"
        counts = (
            (self._unchanged, "up to date"),
            (self._kept, "newer here and kept"),
            (self._skipped, "left out (neither files nor folders)"),
            (self._items.failures, "NOT copied"),
        )
        parts = [f"Copied {self._files} {noun} ({gnu_size(self._size)})"]
        parts[0] += f" to {printable(destination)}"
        return ", ".join(parts + [f"{count} {what}" for count, what in counts if count])
