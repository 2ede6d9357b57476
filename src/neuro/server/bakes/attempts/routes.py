"""Attempts over HTTP, and following one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from neuro.domain.bakes import Attempt, AttemptRequest
from neuro.server.bakes.attempts.follow import Events, Follower
from neuro.server.bakes.attempts.service import AttemptService
from neuro.server.bakes.checks import MAX_BODY
from neuro.server.bakes.routes import BAKES
from neuro.server.http.answers import list_answer
from neuro.server.http.routes import Call, Routes
from neuro.server.http.streams import NDJSON, live_ndjson

ATTEMPTS = "/api/v1/flow/attempts"


class AttemptsOfBake(msgspec.Struct, frozen=True):
    bake_id: str


class ByNumber(msgspec.Struct, frozen=True):
    """The number -1 is the last one's."""

    bake_id: str
    number: int


class Following(msgspec.Struct, frozen=True):
    """``executor``: the caller drives the attempt, and the stream is its sign of life."""

    attempt: int = -1
    tasks: bool = True
    executor: bool = False


def add_attempts(api: Routes, attempts: AttemptService, follower: Follower) -> None:
    """Declare the routes of attempts."""

    @api.add("GET", ATTEMPTS, section="flows", streams=NDJSON)
    async def list_attempts(call: Call, query: AttemptsOfBake) -> web.StreamResponse:
        """List a bake's attempts by number; NDJSON where the client accepts it."""
        return await list_answer(call, attempts.attempts(call.identity, query.bake_id))

    @api.add("POST", ATTEMPTS, status=201, section="flows", max_body=MAX_BODY)
    async def create_attempt(call: Call, body: AttemptRequest) -> Attempt:
        """Add an attempt to a bake; 409 for a number that is taken, or while one is not over."""
        return await attempts.create(call.identity, body)

    @api.add("GET", f"{ATTEMPTS}/by_number", section="flows")
    async def attempt_by_number(call: Call, query: ByNumber) -> Attempt:
        """A bake's attempt of a number, or its last one."""
        return await attempts.by_number(call.identity, query.bake_id, query.number)

    @api.add("PUT", f"{ATTEMPTS}/replace", section="flows")
    async def replace_attempt(call: Call, body: AttemptRequest) -> Attempt:
        """Change an attempt's result and executor; a final result stays as it is."""
        return await attempts.replace(call.identity, body)

    @api.add("GET", ATTEMPTS + "/{attempt}", section="flows")
    async def get_attempt(call: Call) -> Attempt:
        """An attempt by its id."""
        return await attempts.attempt(call.identity, call.segment("attempt"))

    @api.add("GET", BAKES + "/{bake}/events", streams=NDJSON)
    async def follow_attempt(call: Call, query: Following) -> web.StreamResponse:
        """An attempt's state and tasks, a line with ``synced``, then each change at once."""
        attempt = await attempts.by_number(
            call.identity, call.segment("bake"), query.attempt, drives=query.executor
        )
        events = follower.follow(attempt, tasks=query.tasks, executor=query.executor)
        return await live_ndjson(call, _blocks(events))


async def _blocks(found: AsyncGenerator[Events]) -> AsyncGenerator[bytes]:
    encoder = msgspec.json.Encoder()
    async with aclosing(found):
        async for events in found:
            yield encoder.encode_lines(events)
