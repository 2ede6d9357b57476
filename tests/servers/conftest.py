"""The database of several servers, directly and through pgbouncer."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer
from tests.servers.pgbouncer import PgBouncer, find_program


@pytest.fixture(scope="session")
def bouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A pgbouncer in transaction mode before the tests' PostgreSQL."""
    if find_program() is None and not os.environ.get("CI"):
        pytest.skip("needs pgbouncer (apt: pgbouncer)")
    with PgBouncer(postgres_server.url("postgres")) as bouncer:
        yield bouncer


@pytest.fixture(params=["direct", "bouncer"])
def shared_database(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[str]:
    """An empty PostgreSQL database, reached in both ways."""
    with postgres_server.database() as url:
        if request.param == "bouncer":
            bouncer: PgBouncer = request.getfixturevalue("bouncer")
            url = bouncer.url(url)
        yield url
