"""The client of one command: it asks no question twice whose answer a command can rely on."""

from __future__ import annotations

from neuro.client import Client
from neuro.domain.server_config import ServerConfig


class CommandClient(Client):
    """A client that lives for a command; a program's own, which may live for days, asks anew."""

    _known: ServerConfig | None = None

    async def config(self) -> ServerConfig:
        if self._known is None:
            self._known = await super().config()
        return self._known
