from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.cli.project import LIVE, Person


@pytest.fixture
def alone(tmp_path: Path) -> Person:
    """A person with a project, and no platform."""
    return Person(tmp_path / "home")


@pytest.fixture(scope="session")
def with_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    person = Person(tmp_path_factory.mktemp("flow") / "home")
    (person.data_dir / "server.toml").write_text(
        'stop_grace_seconds = 0.1\n[capacity]\ncpu = 16\nmemory = "4G"\n'
        '[[presets]]\nname = "small"\ncpu = 0.5\nmemory = "128M"\n'
        # Two of these do not fit: the second one waits.
        '[[presets]]\nname = "large"\ncpu = 15.9\nmemory = "128M"\n'
    )
    with person.with_platform():
        yield person


@pytest.fixture
def person(with_platform: Person) -> Iterator[Person]:
    """A person with a project and a platform; no job is active when the test is over."""
    with_platform.write(".neuro/live.yml", LIVE)
    yield with_platform
    with_platform.end_jobs()
