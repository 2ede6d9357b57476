"""What clients ask of the supervision over HTTP: this platform's own."""

from __future__ import annotations

from neuro.domain.jobs import Job
from neuro.domain.permissions import Action
from neuro.server.database.engine import Database
from neuro.server.flows.guard import Guard
from neuro.server.flows.supervision.supervisor import Supervisor
from neuro.server.http.routes import Call, Routes


def supervision_routes(database: Database, guard: Guard, supervisor: Supervisor) -> Routes:
    """The routes of main jobs."""
    api = Routes("flows")

    @api.add("POST", "/api/v1/flow/attempts/{attempt}/executor", status=201)
    async def start_main_job(call: Call) -> Job:
        """Submit the job that drives an attempt; the same one every time."""
        attempt_id = call.segment("attempt")
        await database.read(
            lambda connection: guard.attempt(connection, call.identity, attempt_id, Action.WRITE)
        )
        return await supervisor.start_main_job(call.identity, attempt_id)

    return api
