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
    person = Home(tmp_path_factory.mktemp("platform") / "home")
    person.ok("up", "--port", "0")
    yield person
    if jobs := person.ok("-q", "ps").split():
        person.run("kill", *jobs)
    person.ok("down")


@pytest.fixture
def person(platform: Home) -> Iterator[Home]:
    """The person with the running platform; no job is active when the test is over."""
    yield platform
    if jobs := platform.ok("-q", "ps").split():
        platform.run("kill", *jobs)
        for job in jobs:
            platform.run("logs", job)
