"""A real server on each database, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from neuro.client import Client
from neuro.server.database.engine import Database, sqlite_url
from neuro.server.database.migrate import migrate
from tests.server.wire import Wire
from tests.server_process import ServerProcess, running_server


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out PostgreSQL where a module says by ``ONLY_SQLITE`` why nothing there depends on it.

    ``test_only_sqlite.py`` holds that such a module knows of no table.
    """
    left_out = {
        item
        for item in items
        if isinstance(item, pytest.Function)
        and item.get_closest_marker("postgres")
        and hasattr(item.module, "ONLY_SQLITE")
    }
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A running server; the tests of one module share it."""
    folder = tmp_path_factory.mktemp("data")
    if request.param == "sqlite":
        with running_server(folder) as server:
            yield server
        return
    with (
        request.getfixturevalue("postgres_server").database() as url,
        running_server(folder, database=url) as server,
    ):
        yield server


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty SQLite, for what needs no server."""
    database = Database(sqlite_url(tmp_path / "neuro.db"))
    migrate(database)
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def own_database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """Where a server of a test's own keeps its records; None: in its data folder."""
    if request.param == "sqlite":
        yield None
        return
    with request.getfixturevalue("postgres_server").database() as url:
        yield url


@pytest.fixture
def own_server(own_database: str | None, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of a test's own on each database: it may be killed, and its people may go."""
    with running_server(tmp_path / "data", database=own_database) as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """The owner of the machine, who is an admin."""
    async with Client.connect(server.url, server.token) as client:
        client.user = server.user
        yield client


@pytest.fixture
async def alice(server: ServerProcess, client: Client) -> AsyncIterator[Client]:
    """A user who is nobody special."""
    if "alice" not in {user.name for user in await client.users.all()}:
        await client.users.add("alice")
    token = await client.users.create_token("alice", label="tests")
    async with Client.connect(server.url, token.token) as alice:
        alice.user = "alice"
        yield alice


@pytest.fixture
async def wire(server: ServerProcess) -> AsyncIterator[Wire]:
    """The owner of the machine, as a reference client calls."""
    headers = {"Authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Wire(session, server.url)


@pytest.fixture
async def alices_wire(server: ServerProcess, client: Client, alice: Client) -> AsyncIterator[Wire]:
    """Alice, as a reference client calls."""
    token = await client.users.create_token(alice.user)
    headers = {"Authorization": f"Bearer {token.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Wire(session, server.url)
