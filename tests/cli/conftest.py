from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.platform import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A person who has never used the platform."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A person whose platform runs, shared by the tests; each cleans up its own jobs."""
    with Home(tmp_path_factory.mktemp("platform") / "home").with_platform() as person:
        yield person


@pytest.fixture
def person(platform: Home) -> Iterator[Home]:
    """The person with the running platform; no job is active when the test is over."""
    yield platform
    platform.end_jobs()
