from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.people import Person, Raw
from tests.storage.server import StorageServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StorageServer]:
    """The storage over a folder of its own, with the users alice, bob and admin."""
    with StorageServer(tmp_path / "root") as running:
        yield running


@pytest.fixture(params=["openat2", "by steps"])
def either_kernel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorageServer]:
    """The storage on a kernel with openat2, and on one without."""
    use_openat2 = request.param == "openat2"
    with StorageServer(tmp_path / "root", use_openat2=use_openat2) as running:
        yield running


@pytest.fixture
def raw(server: StorageServer) -> Raw:
    """Plain requests as alice."""
    return Raw(server)


@pytest.fixture(params=["blocking", "aiohttp"])
def alice(request: pytest.FixtureRequest, server: StorageServer) -> Person:
    """A person with the SDK, on both of its transports."""
    return Person(server, "alice", request.param)
