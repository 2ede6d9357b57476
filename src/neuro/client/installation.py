"""The state of a server: its version, its engines and what is free."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from neuro.client.messages import get
from neuro.domain.errors import NotFound
from neuro.domain.resources import Amount

if TYPE_CHECKING:
    from neuro.client.client import Client


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: all that it has, what is free, what its administrator should know.

    ``is_here`` says whether this server has it now, and not another one of the same database.
    ``away`` says what keeps its jobs waiting where it is away, or no server has it; it is one of
    the notices too.
    """

    name: str
    is_here: bool = True
    away: str | None = None
    capacity: Amount
    free: Amount
    running: int = 0
    pending: int = 0
    notices: list[str] = []


class ServerState(msgspec.Struct, frozen=True, kw_only=True):
    """What ``GET /server`` answers; ``notices`` are about the settings."""

    version: str
    engines: list[EngineState] = []
    database: str | None = None
    notices: list[str] = []


async def server_state(client: Client) -> ServerState:
    """How the client's server is."""
    return await get(client.transport, "/server", ServerState)


async def engines_away(client: Client) -> dict[str, str]:
    """What keeps the jobs of engines waiting that are away; none of a server that has no such."""
    with suppress(NotFound):
        state = await server_state(client)
        return {engine.name: engine.away for engine in state.engines if engine.away}
    return {}
