"""Frames between the engine, the zygote and the supervisors: one kind byte, a length, a payload."""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

_HEADER = struct.Struct("<BI")
LIMIT = 64 << 20  # a frame longer than this is a broken peer, not a request

# Engine -> zygote, and its answers.
CONFIGURE = 1  # json: launch.Plan, for all runs from now on
START = 2  # json: request id and launch.Request
READY = 3
ANSWER = 4  # json: request id, "started" | "exists", or an error

# The first frame of a connection to a supervisor says what the connection is for.
CONTROL = 10
ATTACH = 11  # json: stdin
EXEC = 12  # json: argv, tty
CONNECT = 13  # answered by one byte that carries a socket inside the run's network

# Control.
STATE = 20  # json: what the run is now
STARTED = 21  # json: at (ns), init (pid)
EXITED = 22  # json: the exit record
STOP = 23  # json: grace (s)
FOLLOW = 24  # u64: tell me once when the output ends after this offset
WROTE = 25  # u64: where it ends
WAITING = 26  # json: at (ns), progress: its image is pulled

# Sessions.
OPENED = 30  # json: where the output ends and the input stands now (attach), or an error
INPUT = 31
INPUT_END = 32
RESIZE = 33  # json: width, height
OUTPUT = 34
ERROR_OUTPUT = 35
CODE = 36  # json: exit code
INPUT_TAKEN = 37  # u64: how many bytes of input have reached the process
INPUT_CLOSED = 38  # nobody will read any more input

OFFSET = struct.Struct("<Q")


def frame(kind: int, payload: bytes = b"") -> bytes:
    """One message, ready to send."""
    return _HEADER.pack(kind, len(payload)) + payload


def json_frame(kind: int, value: Any) -> bytes:
    """One message whose payload is JSON."""
    return frame(kind, json.dumps(value, separators=(",", ":")).encode())


def receive_descriptors(channel: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it, which our children will not have."""
    data, descriptors, _, _ = socket.recv_fds(channel, size, most)
    for fd in descriptors:  # the flag that would do it is not passed on by some Pythons
        os.set_inheritable(fd, False)
    return data, descriptors


def read_whole(file: int) -> bytes:
    """All of a file in memory that came with a message; it is closed. Raises OSError."""
    try:
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


class Frames:
    """Cuts a byte stream back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The messages that ``data`` completes. Raises ValueError for an absurd length."""
        self._buffer += data
        messages: list[tuple[int, bytes]] = []
        start = 0
        while len(self._buffer) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer, start)
            if length > LIMIT:
                raise ValueError(f"a frame of {length} bytes")
            end = start + _HEADER.size + length
            if len(self._buffer) < end:
                break
            messages.append((kind, bytes(self._buffer[start + _HEADER.size : end])))
            start = end
        if start:
            del self._buffer[:start]
        return messages
