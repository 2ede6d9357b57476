"""Live connections to a run: what ``attach``, ``exec`` and ``connect`` of an engine give."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Channel:
    """Numbers of a session's byte streams; they are the wire's own (attach and exec)."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class InputState(msgspec.Struct, frozen=True):
    """How many bytes the process's input has taken in all; ``closed``: it takes no more."""

    taken: int = 0
    closed: bool = False


class Session(Protocol):
    """A live connection to a run's main process (``attach``) or to a process of its own (``exec``).

    Closing a session of ``exec`` ends its process; closing one of ``attach`` only detaches.
    """

    async def read(self) -> tuple[int, bytes] | None:
        """The next (channel, bytes), or None when the other side is over.

        An item of ``Channel.STDIN`` is not output: the session's ``input`` has changed.
        """
        ...

    @property
    def input(self) -> InputState:
        """How far the input has come, as of the last ``read``."""
        ...

    async def write(self, data: bytes) -> None:
        """Feed stdin; waits while the process does not read. Ignored after its end."""
        ...

    async def write_eof(self) -> None:
        """Close stdin (of a terminal: send its end-of-file character)."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in columns and rows; nothing without a terminal."""
        ...

    async def wait(self) -> int | None:
        """The exit code once it is over; None where the run itself vanished."""
        ...

    async def close(self) -> None: ...


class Connection(Protocol):
    """One TCP connection into a run."""

    async def read(self, limit: int = 1 << 16) -> bytes:
        """Some bytes, or b"" at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...

    async def close(self) -> None: ...
