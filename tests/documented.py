"""Tables of the documentation, for tests that compare them with the code's."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TypeVar

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
ROW = re.compile(r"^ *\| ([A-Z]+) \| (.+) \|$", re.MULTILINE)

P = TypeVar("P", bound=Enum)
E = TypeVar("E", bound=Enum)


def ways(heading: str, phase: type[P], event: type[E]) -> dict[tuple[P, E], P]:
    """The table of phases below a heading of the architecture: ``PHASE | EVENT → PHASE, …``."""
    _, _, after = PAGE.read_text().partition(f"\n## {heading}\n")
    section = after.partition("\n## ")[0]
    found = {}
    for begins, rest in ROW.findall(section):
        for way in rest.split(", "):
            told, _, then = way.partition(" → ")
            found[phase[begins], event[told]] = phase[then]
    return found
