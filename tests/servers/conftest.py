"""The database of several servers, through pgbouncer; what depends on that has it both ways."""

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


@pytest.fixture
def shared_database(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[str]:
    """An empty PostgreSQL database, reached through pgbouncer unless a test is ``both_ways``.

    What goes to it directly is proved by all of tests/server.
    """
    with postgres_server.database() as url:
        if getattr(request, "param", "bouncer") == "bouncer":
            bouncer: PgBouncer = request.getfixturevalue("bouncer")
            url = bouncer.url(url)
        yield url
