"""Pages of jobs are what a look at every job finds, however they are found."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuro.domain.jobs import JobFilter, JobStatus
from neuro.server.access.grants import Visibility
from neuro.server.database.engine import Database, keep_open, sqlite_url
from neuro.server.database.migrate import migrate
from neuro.server.jobs import listing
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord
from tests.server.test_tables import add, record

PEOPLE = ("anna", "boris", "carl", "dora")
NAMES = ("train", "test", None)


def made_of(count: int) -> list[JobRecord]:
    """A fifth of them are active, and have no name: an active name is one job's only."""
    draw = random.Random(7)
    over = [draw.random() < 0.8 for _ in range(count)]
    return [
        record(owner=draw.choice(PEOPLE), name=draw.choice(NAMES) if it else None, over=it)
        for it in over
    ]


MADE = made_of(60)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    migrate(database)
    add(database, *MADE)
    yield database
    database.close()


ONES = st.tuples(
    st.sampled_from(PEOPLE),
    st.sampled_from([*(made.id for made in MADE), "train", "test", "nobody's"]),
)
# Mostly the right owner's.
SHARED = st.sampled_from([(made.owner, made.id) for made in MADE])
VISIBLE = st.builds(
    Visibility,
    st.sampled_from([False] * 9 + [True]),
    st.frozensets(st.sampled_from(PEOPLE), max_size=2),
    st.frozensets(SHARED | ONES, max_size=40),
)
QUERIES = st.builds(
    JobFilter,
    reverse=st.booleans(),
    status=st.sampled_from([[], [JobStatus.SUCCEEDED]]),
    owner=st.sampled_from([[], ["anna", "dora"]]),
    name=st.sampled_from([None, None, "train"]),
    tag=st.sampled_from([[], ["tests"]]),
)


def model(visible: Visibility, query: JobFilter) -> list[str]:
    """A look at every job."""
    found = [
        made.id
        for made in MADE
        if visible.shows(made.owner, made.id, made.name)
        and (not query.status or made.phase is Phase.OVER)
        and (not query.owner or made.owner in query.owner)
        and (query.name is None or made.name == query.name)
    ]
    return found[::-1] if query.reverse else found


# It looks up at once; after one step; when few are found; never.
@pytest.mark.parametrize(("few", "affordable"), [(1000, 0), (-1, 0), (-1, 1), (-1, 10_000)])
def test_pages_are_what_a_look_at_every_job_finds(
    database: Database, monkeypatch: pytest.MonkeyPatch, few: int, affordable: int
) -> None:
    monkeypatch.setattr(listing, "FEW", few)
    monkeypatch.setattr(listing, "FIRST_STEP", 4)
    monkeypatch.setattr(listing, "WALKED_PER_LOOKUP", affordable)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
    @given(VISIBLE, QUERIES, st.integers(1, 9))
    def check(visible: Visibility, query: JobFilter, page: int) -> None:
        found: list[str] = []
        after = None
        with database.engine.connect() as connection:
            keep_open(connection)  # this process may stand still on a busy machine
            while True:
                records, last, _ = listing.list_jobs(
                    connection, visible, query, page=page, after=after
                )
                assert len(records) == page or last is None
                found += [made.id for made in records]
                if last is None:
                    break
                after = last

        assert found == model(visible, query)

    check()


def test_a_page_costs_no_more_for_somebody_with_more_grants(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "jobs.db"))
    migrate(database)
    made = [record() for _ in range(listing.FEW * 4)]
    ids = add(database, *made)

    def steps(some: int) -> int:
        """How many hundreds of SQLite's steps a page of ten takes with so many grants."""
        count = itertools.count()
        singles = frozenset(("alice", one) for one in ids[:some])
        with database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_progress_handler(lambda: 0 * next(count), 100)
            visible = Visibility(singles=singles)
            found, *_ = listing.list_jobs(connection, visible, JobFilter(), page=10, after=None)
            driver.set_progress_handler(None, 0)
        assert [made.id for made in found] == ids[:10]
        return next(count)

    assert steps(listing.FEW * 4) <= steps(listing.FEW + 1)
    database.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_looked_up_by_its_place_costs_a_look_into_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    monkeypatch.setattr(listing, "FEW", 10)
    monkeypatch.setattr(listing, "FIRST_STEP", 1)
    monkeypatch.setattr(listing, "WALKED_PER_LOOKUP", 0)
    database = Database(sqlite_url(tmp_path / "jobs.db"))
    migrate(database)
    ids = add(database, *(record() for _ in range(1000)))

    def steps(some: int) -> int:
        """How many hundreds of SQLite's steps a page of ten takes with so many grants."""
        count = itertools.count()
        visible = Visibility(singles=frozenset(("alice", one) for one in ids[:some]))
        query = JobFilter(reverse=reverse, status=[JobStatus.SUCCEEDED])
        with database.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.set_progress_handler(lambda: 0 * next(count), 100)
            found, *_ = listing.list_jobs(connection, visible, query, page=10, after=None)
            driver.set_progress_handler(None, 0)
        assert [made.id for made in found] == (ids[some - 10 : some][::-1] if reverse else ids[:10])
        return next(count)

    # A thousand looks into the index, and no way through all jobs for each of them.
    assert steps(1000) < 250
    assert steps(100) < 50
    database.close()
