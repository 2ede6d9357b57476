"""A live connection to a job's process: its output, its input, its terminal's size."""

from __future__ import annotations

import msgspec

from neuro.client.transport import WebSocket

# Of the third protocol's channels the fifth is about the input; servers without it know the second.
COUNTED_INPUT = "v3.channels.neu.ro"
CHANNEL_PROTOCOLS = (COUNTED_INPUT, "v2.channels.neu.ro")
# How much input may be on its way: what the process has not taken waits here and not there.
WINDOW_BYTES = 1 << 20


class _InputState(msgspec.Struct, frozen=True):
    taken: int = 0
    closed: bool = False


class JobSession:
    """A live connection to a job's process: ``attach`` or ``exec``.

    See docs/reference/wire-protocol.md#attach.

    ``exit_code`` is known once ``read`` has returned None, unless the connection was lost.
    ``taken`` is how many bytes the process's input has taken in all, and ``input_closed`` that it
    takes no more; both as of the last ``read``, and only where the server ``counts_input``.
    ``is_over``: ``read`` has returned None.
    """

    STDIN, STDOUT, STDERR, RESULT, RESIZE, INPUT = range(6)

    def __init__(self, socket: WebSocket) -> None:
        import asyncio  # Its 60 ms are for those who have a session.

        self.exit_code: int | None = None
        self.taken = 0
        self.input_closed = False
        self.is_over = False
        self._socket = socket
        self.counts_input = socket.protocol == COUNTED_INPUT
        self._sent = 0
        self._known = asyncio.Event()
        self._changed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        """The next (channel, bytes) of the output, or None at the end."""
        while (message := await self._socket.receive()) is not None:
            channel = message[0] if message else None
            if channel in (self.STDOUT, self.STDERR):
                return channel, message[1:]
            if channel == self.RESULT:
                self.exit_code = _exit_code(message[1:])
                break
            if channel == self.INPUT:
                state = msgspec.json.decode(message[1:], type=_InputState)
                self._hear(state.taken, closed=state.closed)
        self.is_over = True
        self._hear(self.taken, closed=True)
        return None

    def _hear(self, taken: int, *, closed: bool) -> None:
        self.taken, self.input_closed = taken, closed
        self._known.set()
        self._changed.set()

    async def resume(self) -> int:
        """Wait until it is known how much of the input an attached job has taken: go on there.

        ``read`` must go on meanwhile.
        """
        if self.counts_input:
            await self._known.wait()
        self._sent = self.taken
        return self.taken

    async def write(self, data: bytes) -> None:
        """Feed the process's standard input.

        Where a megabyte is on its way it waits until the process has read some; ``read`` must go on
        meanwhile. Raises BrokenPipeError once nobody reads any more.
        """
        while (
            self.counts_input and not self.input_closed and self._sent - self.taken >= WINDOW_BYTES
        ):
            self._changed.clear()
            await self._changed.wait()
        if self.input_closed:
            raise BrokenPipeError("the process in the job reads no more of its input")
        self._sent += len(data)
        await self._socket.send(b"\x00" + data)

    async def write_eof(self) -> None:
        """End the process's standard input; to a terminal, type the end of a file."""
        if self.counts_input and not self.input_closed:
            await self._socket.send(b'\x05{"end":true}')

    async def until_input_closed(self) -> None:
        """Wait until the process takes no more input, or all of it. ``read`` must go on."""
        while not self.input_closed:
            self._changed.clear()
            await self._changed.wait()

    async def resize(self, width: int, height: int) -> None:
        """Tell the size of the terminal in columns and rows."""
        size = msgspec.json.encode({"height": height, "width": width})
        await self._socket.send(b"\x04" + size)


def _exit_code(content: bytes) -> int:
    # The reference's rule: what cannot be read means 1.
    try:
        code = msgspec.json.decode(content)["exit_code"]
        return int(code)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 1
