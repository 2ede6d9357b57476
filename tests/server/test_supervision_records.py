"""What the supervision keeps of attempts in the database: another server goes on from there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest

from neuro.domain.bakes import (
    Attempt,
    Bake,
    BakeMeta,
    BakeRequest,
    Concurrency,
    ConfigsMeta,
    TaskRequest,
    TaskStatus,
    TaskTransition,
    new_id,
)
from neuro.domain.flows import Project, ProjectRequest
from neuro.domain.permissions import Action, Permission
from neuro.domain.uris import parse_uri
from neuro.server.access.grants import Grants
from neuro.server.access.identity import Identity
from neuro.server.bakes.assembly import BakeServices
from neuro.server.bakes.attempts import tables, turns
from neuro.server.bakes.events import Hub
from neuro.server.bakes.leaving import leaving_with
from neuro.server.database.engine import Database
from neuro.server.database.migrate import migrate
from neuro.server.projects.service import ProjectService
from neuro.server.supervision import records

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OWNER = Identity(
    "anna", Grants.of([Permission(parse_uri("flow://default/anna"), Action.MANAGE)]), "token"
)


class Place:
    """A project on a database."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        migrate(self.database)
        self.project: Project | None = None
        hub = Hub()
        self.services = BakeServices.of(self.database, "default", hub)
        self.flows = ProjectService(self.database, "default", partial(leaving_with, hub))

    async def bake(self, meta: BakeMeta | None = None) -> Bake:
        if self.project is None:
            self.project = await self.flows.create_project(OWNER, ProjectRequest(name="p"))
        request = BakeRequest(
            project_id=self.project.id, batch="b", graphs={}, meta=meta or BakeMeta()
        )
        return await self.services.bakes.create(OWNER, request)

    def attempt(self, bake: Bake) -> Attempt:
        """An attempt as a server of an earlier version left it, in no line."""
        attempt = Attempt(
            id=new_id("attempt"),
            bake_id=bake.id,
            number=1,
            created_at=NOW,
            result=TaskStatus.RUNNING,
            configs_meta=ConfigsMeta(workspace="/w", flow_config_id="f"),
            executor_id="job-1",
        )
        self.database.write_now(lambda c: tables.add_attempt(c, attempt))
        return attempt


@pytest.fixture
async def place(database_url: str) -> AsyncIterator[Place]:
    place = Place(database_url)
    yield place
    place.database.close()


async def test_a_death_is_counted_once_by_whichever_server(place: Place) -> None:
    attempt = place.attempt(await place.bake())

    def count(job: str) -> int:
        of_job = msgspec.structs.replace(attempt, executor_id=job)
        return place.database.write_now(lambda c: records.count_death(c, of_job))

    assert [count("job-1"), count("job-1"), count("job-2"), count("job-2"), count("job-3")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    step = TaskTransition(created_at=NOW, status=TaskStatus.RUNNING)
    await place.services.tasks.put(
        OWNER, [TaskRequest(attempt_id=attempt.id, yaml_id="t", statuses=[step])]
    )
    # Something got on meanwhile.
    assert count("job-4") == 1


async def test_attempts_of_an_earlier_version_get_their_places_in_the_order_of_their_beginning(
    place: Place,
) -> None:
    meta = BakeMeta(concurrency=Concurrency(group="g"))
    bakes = [await place.bake(meta) for _ in range(2)]
    attempts = [place.attempt(bake) for bake in bakes]
    found = list(zip(attempts, bakes, strict=True))

    for _ in range(2):
        place.database.write_now(lambda c: records.enter_lines(c, found))

    with place.database.engine.connect() as connection:
        lines = [turns.ahead(connection, attempt.id) for attempt in attempts]
    assert [[turn.bake_id for turn in line or ()] for line in lines] == [[], [bakes[0].id]]
