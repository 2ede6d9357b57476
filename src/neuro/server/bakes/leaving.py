"""What goes with a project that is removed: its bakes, and those who follow or drive them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from neuro.server.bakes.attempts.tables import unfinished_of_project
from neuro.server.bakes.events import Hub
from neuro.server.bakes.feed import record_removal
from neuro.server.bakes.tables import ids_of_project


def leaving_with(hub: Hub, connection: Connection, project_id: str) -> Callable[[], None]:
    """Look at the bakes of a project before it goes. Returns what tells the hub afterwards."""
    bakes = ids_of_project(connection, project_id)
    unfinished = unfinished_of_project(connection, project_id)
    record_removal(connection, bakes)
    return partial(hub.project_removed, project_id, bakes, unfinished)
