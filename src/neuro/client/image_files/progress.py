"""What is told while an image is copied."""

from __future__ import annotations

from typing import Protocol


class LayerProgress(Protocol):
    """How far each part of an image is. Called from several threads."""

    def moved(self, part: str, done: int, size: int) -> None:
        """So much of a part has been copied, in bytes."""
        ...

    def ended(self, part: str, what: str) -> None:
        """A part is there: ``pushed``, ``pulled`` or ``there already``."""
        ...


class Silent:
    """Tells nothing."""

    def moved(self, part: str, done: int, size: int) -> None:
        pass

    def ended(self, part: str, what: str) -> None:
        pass
