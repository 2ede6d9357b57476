"""What servers of one database tell each other of bakes.

Whoever changes one records in the same transaction what it was (the functions); ``BakeFeed`` tells
the hub of what the other servers have recorded, and the others of what is no change of a record:
signs of life, and where the streams of drivers are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial

import structlog
from sqlalchemy import Connection

from neuro.domain.bakes import Attempt
from neuro.domain.errors import Unavailable
from neuro.server.background import Background
from neuro.server.bakes.attempts import drivers
from neuro.server.bakes.events import Hub, Observer
from neuro.server.database.engine import Database
from neuro.server.fleet.changes import Changes, Topic, record

log = structlog.get_logger("neuro.bakes")

# Signs of life are told together: nobody needs them sooner.
GATHER_SECONDS = 1.0
# After the database was away.
RETRY_SECONDS = 5.0


def record_attempt(connection: Connection, attempt: Attempt) -> None:
    """An attempt was made, or is another."""
    record(connection, Topic.ATTEMPT, [f"{attempt.bake_id} {attempt.id}"])


def record_tasks(
    connection: Connection, bake_id: str, attempt_id: str, yaml_ids: Iterable[str]
) -> None:
    """Tasks of an attempt are others."""
    record(connection, Topic.TASK, [f"{bake_id} {attempt_id} {yaml_id}" for yaml_id in yaml_ids])


def record_removal(connection: Connection, bake_ids: Sequence[str]) -> None:
    """Bakes are gone."""
    if bake_ids:
        record(connection, Topic.BAKE, bake_ids)


class BakeFeed(Observer):
    """Between the hub of this server and those of the others; nothing where there is one server."""

    def __init__(
        self, database: Database, hub: Hub, changes: Changes, server: str, background: Background
    ) -> None:
        self._database = database
        self._hub = hub
        self._changes = changes
        self._server = server
        self._errands = background.errands("feed of bakes")
        self._touched: dict[str, None] = {}
        self._is_gathering = False
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Begin. Raises Unavailable."""
        if self._database.is_sqlite:
            return
        # Of an earlier life of this server.
        await self._database.write(partial(drivers.forget, server=self._server))
        for topic, tell in (
            (Topic.ATTEMPT, self._tell_attempts),
            (Topic.TASK, self._tell_tasks),
            (Topic.TOUCH, self._tell_touches),
            (Topic.DRIVER, self._tell_drivers),
            (Topic.BAKE, self._tell_removals),
        ):
            self._changes.listen(topic, tell)
        self._hub.observe(self)

    async def close(self) -> None:
        """Stop."""
        self._hub.leave(self)
        await self._errands.finish()

    # From the others.

    def _tell_attempts(self, keys: tuple[str, ...] | None) -> None:
        if keys is None:  # Of all topics at once: once is enough.
            self._hub.fell_behind()
            return
        for key in keys:
            self._hub.attempt_noted(*key.split(" "))

    def _tell_tasks(self, keys: tuple[str, ...] | None) -> None:
        of_attempt: dict[tuple[str, str], list[str]] = {}
        for key in keys or ():
            bake_id, attempt_id, yaml_id = key.split(" ", 2)
            of_attempt.setdefault((bake_id, attempt_id), []).append(yaml_id)
        for (bake_id, attempt_id), yaml_ids in of_attempt.items():
            self._hub.tasks_noted(bake_id, attempt_id, yaml_ids)

    def _tell_touches(self, keys: tuple[str, ...] | None) -> None:
        for key in keys or ():
            self._hub.touch_noted(*key.split(" "))

    def _tell_drivers(self, keys: tuple[str, ...] | None) -> None:
        if keys is None:
            for attempt_id in self._hub.driven:
                self._write_driver(attempt_id)
        for attempt_id in keys or ():
            self._hub.driver_noted(attempt_id)
            # While this server was frozen, another may have taken its streams for ended.
            if self._hub.is_driven(attempt_id):
                self._write_driver(attempt_id)

    def _tell_removals(self, keys: tuple[str, ...] | None) -> None:
        for bake_id in keys or ():
            self._hub.bake_noted(bake_id)

    # To the others.

    def executor_attached(self, attempt: Attempt) -> None:
        """Its driver's stream is here."""
        self._write_driver(attempt.id)

    def executor_detached(self, attempt: Attempt) -> None:
        """Its driver's last stream here has ended."""
        self._write_driver(attempt.id)

    def attempt_touched(self, bake_id: str, attempt_id: str) -> None:
        """A sign of life, for the server that supervises."""
        if self._changes.is_alone():
            return
        self._touched[f"{bake_id} {attempt_id}"] = None
        if not self._is_gathering:
            self._is_gathering = True
            self._errands.begin(self._write_touches())

    def _write_driver(self, attempt_id: str) -> None:
        self._errands.begin_until_done(
            partial(self._try_to_write_driver, attempt_id), RETRY_SECONDS
        )

    async def _try_to_write_driver(self, attempt_id: str) -> None:
        # In turn, and what is so then: two that come quickly leave the last one's state.
        async with self._writing:
            write = drivers.attach if self._hub.is_driven(attempt_id) else drivers.detach

            def change(connection: Connection) -> None:
                if write(connection, attempt_id, self._server):
                    record(connection, Topic.DRIVER, [attempt_id])

            try:
                await self._database.write(change)
            except Unavailable as error:
                log.warning("cannot tell where a bake is driven", error=error.message)
                raise
        self._changes.ring()

    async def _write_touches(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        self._is_gathering = False
        touched, self._touched = list(self._touched), {}
        try:
            await self._database.write(lambda c: record(c, Topic.TOUCH, touched))
        except Unavailable as error:
            log.warning("cannot tell of a sign of life of a bake", error=error.message)
            return
        self._changes.ring()
