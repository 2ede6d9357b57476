"""All that is kept of bakes: its services, put together, and their routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from neuro.server.bakes.attempts.follow import Follower
from neuro.server.bakes.attempts.routes import add_attempts
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.bakes.cache.routes import add_cache_entries
from neuro.server.bakes.cache.service import CacheService
from neuro.server.bakes.events import Hub
from neuro.server.bakes.files.routes import add_files
from neuro.server.bakes.files.service import FileService
from neuro.server.bakes.guard import BakeGuard
from neuro.server.bakes.images.routes import add_images
from neuro.server.bakes.images.service import ImageService
from neuro.server.bakes.routes import add_bakes
from neuro.server.bakes.service import BakeService
from neuro.server.bakes.tasks.routes import add_tasks
from neuro.server.bakes.tasks.service import TaskService
from neuro.server.database.engine import Database
from neuro.server.database.transactions import Turns
from neuro.server.http.answers import INSIDE, encode
from neuro.server.http.routes import Routes


@dataclass(frozen=True)
class BakeServices:
    """The services of everything that hangs at a bake."""

    hub: Hub
    guard: BakeGuard
    bakes: BakeService
    attempts: AttemptService
    follower: Follower
    tasks: TaskService
    files: FileService
    images: ImageService
    cache: CacheService

    @classmethod
    def of(cls, database: Database, cluster: str, hub: Hub) -> Self:
        """All of them on one database, telling one hub."""
        guard, turns = BakeGuard(cluster), Turns(database)
        return cls(
            hub=hub,
            guard=guard,
            bakes=BakeService(database, guard, hub, turns),
            attempts=AttemptService(database, guard, hub),
            follower=Follower(database, hub),
            tasks=TaskService(database, guard, hub, turns),
            files=FileService(database, guard, turns),
            images=ImageService(database, guard),
            cache=CacheService(database, guard, turns),
        )


def bake_routes(services: BakeServices) -> Routes:
    """The routes of bakes."""
    api = Routes("bakes", encode=encode, inside=INSIDE)
    add_bakes(api, services.bakes)
    add_attempts(api, services.attempts, services.follower)
    add_tasks(api, services.tasks)
    add_files(api, services.files)
    add_images(api, services.images)
    add_cache_entries(api, services.cache)
    return api
