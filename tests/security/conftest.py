"""One engine for each file of attacks, and a host with a canary that no job was given."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from neuro.engines.sandbox import SandboxEngine, layout
from tests.engines.harness import EVERYWHERE, Runs
from tests.security.host import Host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """Folders of the host outside of every job. They are open to all: only the fence hides them."""
    place = Path(tempfile.mkdtemp(prefix="neuro-host-", dir="/var/tmp"))
    place.chmod(0o755)
    try:
        yield Host(place)
    finally:
        layout.remove_tree(str(place))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs(host: Host) -> AsyncIterator[Runs]:
    """An open engine, for all tests of a file."""
    engine = SandboxEngine(host.place / "engine", storage=EVERYWHERE)
    await engine.open()
    await engine.adopt([])
    opened = Runs(engine)
    yield opened
    await opened.stop_all()
    await opened.close()


@pytest.fixture
def as_root() -> None:
    """Only what a server with the rights of root can be attacked with."""
    if os.geteuid() != 0:
        pytest.skip("there is nothing to attack: the server has no rights over the machine")
