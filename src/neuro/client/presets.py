"""The presets of a cluster; changing them is for administrators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuro.client.messages import below, get, send, tell
from neuro.domain.server_config import PresetMessage, PresetRequest

if TYPE_CHECKING:
    from neuro.client.client import Client


class Presets:
    """Presets of a client's cluster, as all its servers have them. For administrators."""

    def __init__(self, client: Client) -> None:
        self._transport = client.transport
        self._path = below("/clusters", client.cluster) + "/orchestrator/resource_presets"

    async def all(self) -> list[PresetMessage]:
        """All of them; the first one is the default. Raises NotPermitted."""
        return await get(self._transport, self._path, list[PresetMessage])

    async def add(self, preset: PresetRequest) -> PresetMessage:
        """Add one at the end. Raises AlreadyExists, InvalidInput, NotPermitted."""
        return await send(self._transport, "POST", self._path, preset, PresetMessage)

    async def update(self, name: str, change: PresetRequest) -> PresetMessage:
        """Change what ``change`` says. Raises NotFound, InvalidInput, NotPermitted."""
        path = below(self._path, name)
        return await send(self._transport, "PUT", path, change, PresetMessage)

    async def remove(self, name: str) -> None:
        """Remove one; jobs that have it go on. Raises NotFound, NotPermitted."""
        await tell(self._transport, "DELETE", below(self._path, name))
