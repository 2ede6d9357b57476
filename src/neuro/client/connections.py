"""A TCP connection to a port of a job."""

from __future__ import annotations

from neuro.client.transport import WebSocket

# Each direction ends by itself, by an empty message. Older servers know one end, of both.
HALF_CLOSE_PROTOCOL = "half-close.neu.ro"


class JobConnection:
    """A connection to a port of a job: raw bytes both ways, each of which ends by itself.

    See docs/reference/wire-protocol.md#port-forwarding.
    """

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._halves = socket.protocol == HALF_CLOSE_PROTOCOL

    async def send(self, data: bytes) -> None:
        """Send to the job. Raises ServerUnreachable once the connection is lost."""
        if data:
            await self._socket.send(data)

    async def send_eof(self) -> None:
        """Tell the job that no more will be sent; what it sends still comes."""
        if self._halves:
            await self._socket.send(b"")

    async def receive(self) -> bytes | None:
        """What the job sent next, or None once it will send no more."""
        while (data := await self._socket.receive()) is not None:
            if data or self._halves:
                return data or None
        return None

    async def wait_closed(self) -> None:
        """Wait until both directions have ended; what the job still sends is dropped."""
        while await self._socket.receive() is not None:
            pass
