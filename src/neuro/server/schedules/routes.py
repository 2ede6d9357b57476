"""Schedules over HTTP: this platform's own."""

from __future__ import annotations

import msgspec
from aiohttp import web

from neuro.domain.bakes import Schedule, ScheduleRequest
from neuro.server.http.answers import INSIDE, encode, list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON
from neuro.server.schedules.service import ScheduleService

SCHEDULES = "/api/v1/flow/schedules"
# The content of its flow files comes with it.
MAX_BODY = 16 << 20


class SchedulesOfProject(msgspec.Struct, frozen=True):
    project_id: str


def schedule_routes(schedules: ScheduleService) -> Routes:
    """The routes of schedules."""
    api = Routes("schedules", encode=encode, inside=INSIDE)

    @api.add("PUT", SCHEDULES, max_body=MAX_BODY)
    async def put_schedule(call: Call, body: ScheduleRequest) -> Schedule:
        """Make the schedule of a project's batch, or change it."""
        return await schedules.put(call.identity, body)

    @api.add("GET", SCHEDULES, streams=NDJSON)
    async def list_schedules(call: Call, query: SchedulesOfProject) -> web.StreamResponse:
        """List a project's schedules by batch; NDJSON where the client accepts it."""
        return await list_answer(call, schedules.list(call.identity, query.project_id))

    @api.add("DELETE", SCHEDULES + "/{schedule}", status=204)
    async def remove_schedule(call: Call) -> None:
        """Remove a schedule; its bakes stay."""
        await schedules.remove(call.identity, call.segment("schedule"))

    return api
