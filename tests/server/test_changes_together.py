"""Small changes that are asked for at once are one transaction, and each fails alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError, OperationalError

from neuro.domain.errors import Unavailable
from neuro.server.database.engine import Database
from neuro.server.database.transactions import MOST_TOGETHER, Together


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    database.write_now(lambda c: c.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")))
    yield database
    database.write_now(lambda c: c.execute(text("DROP TABLE numbers")))
    database.close()


@pytest.fixture
def commits(database: Database) -> list[object]:
    """What grows by one with each transaction."""
    seen: list[object] = []
    event.listen(database.engine, "commit", seen.append)
    return seen


def add(number: int) -> Callable[[Connection], int]:
    return partial(_add, number)


def _add(number: int, connection: Connection) -> int:
    connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return number


async def numbers(database: Database) -> list[int]:
    found = text("SELECT n FROM numbers ORDER BY n")
    return await database.read(lambda connection: list(connection.execute(found).scalars()))


async def test_changes_asked_for_at_once_are_one_transaction(
    database: Database, commits: list[object]
) -> None:
    together = Together(database)

    answers = await asyncio.gather(*(together.write(add(number)) for number in range(5)))

    assert answers == [0, 1, 2, 3, 4] == await numbers(database)
    assert len(commits) == 1


async def test_changes_asked_for_meanwhile_follow_in_the_next_one(
    database: Database, commits: list[object]
) -> None:
    together, goes_on = Together(database), threading.Event()

    def slow(connection: Connection) -> None:
        assert goes_on.wait(20)

    first = asyncio.create_task(together.write(slow))
    await asyncio.sleep(0)  # It is asked for,
    await asyncio.sleep(0)  # and its transaction begins.
    others = [asyncio.create_task(together.write(add(number))) for number in range(5)]
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(first, *others)

    assert len(commits) == 2


async def test_no_transaction_is_longer_than_the_longest(
    database: Database, commits: list[object]
) -> None:
    together = Together(database)

    await asyncio.gather(*(together.write(add(n)) for n in range(MOST_TOGETHER + 1)))

    assert len(commits) == 2


async def test_a_change_that_fails_is_its_callers_alone(database: Database) -> None:
    together = Together(database)

    answers = await asyncio.gather(
        *(together.write(add(number)) for number in (1, 2, 1, 3)), return_exceptions=True
    )

    assert isinstance(answers.pop(2), IntegrityError)
    assert answers == [1, 2, 3] == await numbers(database)


async def test_a_database_that_fails_is_told_in_words(database: Database) -> None:
    together = Together(database)

    def fail(connection: Connection) -> None:
        raise OperationalError("INSERT", {}, Exception("the host is away"))

    answers = await asyncio.gather(
        together.write(fail), together.write(add(1)), return_exceptions=True
    )

    assert isinstance(answers[0], Unavailable)
    assert answers[1] == 1


async def test_a_commit_that_fails_is_told_to_all_and_not_tried_again(database: Database) -> None:
    """It may have been made: a second time would make a second job."""
    together, made = Together(database), list[int]()

    def change(number: int, connection: Connection) -> None:
        made.append(number)
        _add(number, connection)

    def fail(connection: Connection) -> None:
        raise ConnectionError("it is away")

    event.listen(database.engine, "commit", fail)
    answers = await asyncio.gather(
        *(together.write(partial(change, number)) for number in range(3)), return_exceptions=True
    )
    event.remove(database.engine, "commit", fail)

    assert [str(answer) for answer in answers] == ["it is away"] * 3
    assert made == [0, 1, 2]
    assert await numbers(database) == []


async def test_whoever_leaves_keeps_nobody_from_an_answer(database: Database) -> None:
    together = Together(database)
    tasks = [asyncio.create_task(together.write(add(number))) for number in range(3)]
    await asyncio.sleep(0)

    tasks[1].cancel()

    assert await asyncio.gather(tasks[0], tasks[2]) == [0, 2]
    assert await numbers(database) == [0, 1, 2]
