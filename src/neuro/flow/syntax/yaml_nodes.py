"""The nodes of a YAML document, each of which knows where it stands."""

from __future__ import annotations

from collections.abc import Sequence

from neuro.domain.problems import Position, Source
from neuro.flow.syntax.scalars import offsets


class YamlScalar:
    """A scalar: its text, what YAML makes of it, and the places of its characters."""

    __slots__ = ("_offsets", "data", "end", "plain", "source", "start", "style", "text")

    def __init__(
        self, source: Source, start: int, end: int, style: str | None, text: str, data: object
    ) -> None:
        self.source = source
        self.start = start
        self.end = end
        self.style = style
        self.text = text
        self.data = data
        self._offsets: Sequence[int] | None = None

    @property
    def at(self) -> Position:
        return self.source.position(self.start)

    def locate(self, offset: int) -> Position:
        """The place in the source of a character of the parsed text."""
        if self._offsets is None:
            self._offsets = offsets(
                self.source.text, self.start, self.end, self.style or None, self.text
            )
        return self.source.position(self._offsets[max(0, min(offset, len(self.text)))])


class Items:
    """A list of nodes."""

    __slots__ = ("items", "source", "start")

    def __init__(self, source: Source, start: int) -> None:
        self.source = source
        self.start = start
        self.items: list[YamlNode] = []

    @property
    def at(self) -> Position:
        return self.source.position(self.start)


class Entries:
    """Keys with nodes, in the file's order and without duplicates."""

    __slots__ = ("entries", "source", "start")

    def __init__(self, source: Source, start: int) -> None:
        self.source = source
        self.start = start
        self.entries: list[tuple[YamlScalar, YamlNode]] = []

    @property
    def at(self) -> Position:
        return self.source.position(self.start)


YamlNode = YamlScalar | Items | Entries
