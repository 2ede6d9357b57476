"""The first check of somebody reads all that they hold in as few statements as can be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from neuro.domain.permissions import PUBLIC, Action
from neuro.domain.uris import ResourceURI
from neuro.server.access import grant_tables
from neuro.server.access.grant_book import GrantBook
from neuro.server.access.grants import Grant, role_uri
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILE = ResourceURI("storage", "default", ("ann", "file"))
TEAMS = ResourceURI("storage", "default", ("ann", "of teams"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    with database.engine.begin() as connection:
        grant_tables.add_everybody(connection, NOW)
        for name, kind in (
            ("ann", "user"),
            ("bob", "user"),
            ("cat", "user"),
            ("ann/team", "role"),
            ("ann/all", "role"),
        ):
            grant_tables.add_subject(connection, name, kind, NOW)
        for name, uri in (
            ("ann", FILE),
            ("bob", role_uri("ann/team")),
            ("ann/team", role_uri("ann/all")),
            ("ann/all", TEAMS),
        ):
            grant_tables.add_grants(connection, name, [Grant(uri, Action.READ)], NOW)
        grant_tables.changed(connection)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("name", "readable", "statements"),
    [("ann", {FILE}, 1), ("bob", {TEAMS}, 3), ("cat", set[ResourceURI](), 2)],
)
async def test_one_statement_reads_grants_and_one_more_each_step_to_roles(
    database: Database, name: str, readable: set[ResourceURI], statements: int
) -> None:
    asked: list[str] = []
    book = GrantBook(database, lambda: NOW)

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    grants = await book.of(name)

    assert {uri for uri in (FILE, TEAMS) if grants.action_on(uri)} == readable
    assert len(asked) == statements


@pytest.mark.parametrize("name", ["ann", "bob", "cat", PUBLIC])
async def test_what_is_read_is_of_the_newest_generation(database: Database, name: str) -> None:
    def read() -> int:
        with database.engine.connect() as connection:
            return grant_tables.reachable_at(connection, name)[1]

    before = read()
    database.write_now(grant_tables.changed)

    assert (before, read()) == (1, 2)
