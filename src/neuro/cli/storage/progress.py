"""What a copy says while it goes: each file with ``-v``, and every failure."""

from __future__ import annotations

from neuro.cli.output import Output
from neuro.cli.storage.items import Items
from neuro.client.storage import Failed, Silent


class CommandProgress(Silent):
    """Progress without a terminal. The SDK calls it from several threads, one at a time."""

    def __init__(self, out: Output, items: Items) -> None:
        self.out = out
        self._items = items

    def copied(self, source: str, target: str) -> None:
        if self.out.verbose:
            self.out.print(f"{source} -> {target}")

    def skipped(self, source: str, why: str) -> None:
        self.out.warning(f"{source} is left out: {why}")

    def failed(self, failure: Failed) -> None:
        self._items.failed(f"copy {failure.source} to {failure.target}", failure.error)
