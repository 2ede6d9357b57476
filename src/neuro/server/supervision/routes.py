"""What clients ask of the supervision over HTTP: this platform's own."""

from __future__ import annotations

from neuro.domain.jobs import Job
from neuro.domain.permissions import Action
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.http.answers import INSIDE
from neuro.server.http.routes import Call, Routes
from neuro.server.supervision.starter import Starter


def supervision_routes(attempts: AttemptService, starter: Starter) -> Routes:
    """The routes of main jobs."""
    api = Routes("bakes", inside=INSIDE)

    @api.add("POST", "/api/v1/flow/attempts/{attempt}/executor", status=201)
    async def start_main_job(call: Call) -> Job:
        """Submit the job that drives an attempt; the same one every time."""
        attempt = await attempts.attempt(call.identity, call.segment("attempt"), Action.WRITE)
        return await starter.start(call.identity, attempt.id)

    return api
