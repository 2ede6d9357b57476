from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dockerfile.reference import Reference, is_there

HERE = Path(__file__).parent
# The first test builds the reference.
BUILD_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents and "reference" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.go)
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))
            item.add_marker(pytest.mark.xdist_group("dockerfile-reference"))


@pytest.fixture(scope="session")
def reference() -> Iterator[Reference]:
    if not is_there():
        pytest.skip("needs Go: the reference is built from BuildKit's module")
    made = Reference()
    yield made
    made.close()
