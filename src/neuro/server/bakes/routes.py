"""Bakes over HTTP."""

from __future__ import annotations

import msgspec
from aiohttp import web

from neuro.domain.bakes import Bake, BakeChange, BakeFilter, BakeRequest
from neuro.server.bakes.checks import MAX_GRAPHS_BODY
from neuro.server.bakes.service import BakeService
from neuro.server.http.answers import list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON

BAKES = "/api/v1/flow/bakes"


class BakeByName(msgspec.Struct, frozen=True):
    project_id: str
    name: str
    fetch_last_attempt: bool = False


class WithAttempt(msgspec.Struct, frozen=True):
    fetch_last_attempt: bool = False


def add_bakes(api: Routes, bakes: BakeService) -> None:
    """Declare the routes of bakes."""

    @api.add("GET", BAKES, section="flows", streams=NDJSON)
    async def list_bakes(call: Call, query: BakeFilter) -> web.StreamResponse:
        """List a project's bakes by time; NDJSON where the client accepts it."""
        return await list_answer(call, bakes.bakes(call.identity, query))

    @api.add("POST", BAKES, status=201, section="flows", max_body=MAX_GRAPHS_BODY)
    async def create_bake(call: Call, body: BakeRequest) -> Bake:
        """Make a bake; 409 where its project has one of that name that has not ended."""
        return await bakes.create(call.identity, body)

    @api.add("GET", f"{BAKES}/by_name", section="flows")
    async def bake_by_name(call: Call, query: BakeByName) -> Bake:
        """The newest bake of a project's and a name."""
        return await bakes.by_name(
            call.identity, query.project_id, query.name, last_attempt=query.fetch_last_attempt
        )

    @api.add("GET", BAKES + "/{bake}", section="flows")
    async def get_bake(call: Call, query: WithAttempt) -> Bake:
        """A bake by its id."""
        return await bakes.bake(
            call.identity, call.segment("bake"), last_attempt=query.fetch_last_attempt
        )

    @api.add("PATCH", BAKES + "/{bake}", max_body=MAX_GRAPHS_BODY)
    async def change_bake(call: Call, body: BakeChange) -> Bake:
        """Write a bake's graphs anew."""
        return await bakes.change(call.identity, call.segment("bake"), body)
