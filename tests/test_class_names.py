"""A class's name means one thing within its package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import neuro

SOURCE = Path(neuro.__file__).parent


@pytest.mark.parametrize("package", ["dockerfile", "flow", "server"])
def test_a_class_name_means_one_thing_within_its_package(package: str) -> None:
    places = defaultdict(list)
    for path in (SOURCE / package).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(SOURCE)))

    assert {name: found for name, found in places.items() if len(found) > 1} == {}
