"""The state of a server: its version, its engines and what is free."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from neuro.client.messages import get
from neuro.domain.resources import Amount

if TYPE_CHECKING:
    from neuro.client.client import Client


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: all that it has, what is free, what its administrator should know.

    ``is_here`` says whether this server has it now, and not another one of the same database.
    """

    name: str
    is_here: bool = True
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
