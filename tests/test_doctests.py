"""The examples in the docstrings give what they say."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

EXAMPLE = re.compile(r"^ *>>> ", re.MULTILINE)
SOURCES = Path(__file__).parent.parent / "src"
MODULES = [
    ".".join(path.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(SOURCES.glob("neuro/**/*.py"))
    if "templates" not in path.parts and EXAMPLE.search(path.read_text())
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


def test_there_are_examples() -> None:
    assert len(MODULES) > 20
