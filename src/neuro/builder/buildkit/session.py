"""What the daemon asks us for while it builds: a gRPC server on a connection that we have opened.

The daemon is the client there. Each of its calls has an ``Exchange``, which takes messages and
gives others. One thread serves all of them: nothing here takes long, and whatever is large is given
piece by piece, as fast as the daemon takes it.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamReset,
)
from h2.exceptions import ProtocolError, StreamClosedError

_PREFIX = struct.Struct("!BI")  # whether it is compressed, and how long it is
_PIECE = 1 << 16
_MOST = 4 << 20  # bytes of a message: none that we read is large
_MOST_CALLS = 64  # at once
_UNKNOWN, _NOT_FOUND, _UNIMPLEMENTED = 2, 5, 12  # gRPC's statuses
Metadata = Mapping[str, Sequence[str]]


class CallRefused(Exception):
    """A call that ends with an error, which is the text."""

    def __init__(self, sentence: str, status: int = _UNKNOWN) -> None:
        super().__init__(sentence)
        self.status = status


class NotFound(CallRefused):
    """There is nothing of the name that was asked for."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, _NOT_FOUND)


class Exchange(Protocol):
    """One call. Both methods may raise CallRefused and OSError, which end it."""

    is_over: bool

    def take(self, message: bytes) -> None:
        """One message of the caller's."""
        ...

    def give(self) -> bytes | None:
        """The next message for the caller, None where there is none yet, or no more."""
        ...


class Reply:
    """A call of one message that is answered with one."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.is_over = False
        self._answer = answer
        self._ready: bytes | None = None

    def take(self, message: bytes) -> None:
        """See Exchange."""
        self._ready = self._answer(message)

    def give(self) -> bytes | None:
        """See Exchange."""
        ready, self._ready = self._ready, None
        self.is_over = self.is_over or ready is not None
        return ready


Methods = Mapping[str, Callable[[Metadata], Exchange]]


class _Call:
    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.come = b""
        self.going = b""


class Session:
    """Serves ``methods``, by their paths, on a connection. To be started, and closed."""

    def __init__(self, connection: socket.socket, methods: Methods) -> None:
        self._socket = connection
        self._methods = methods
        config = H2Configuration(client_side=False, header_encoding="utf-8")
        self._http = H2Connection(config)
        self._calls: dict[int, _Call] = {}
        self._thread = threading.Thread(target=self._serve, name="session", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End it, and whatever it serves."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        try:
            self._http.initiate_connection()
            self._flush()
            while piece := self._socket.recv(_PIECE):
                for event in self._http.receive_data(piece):
                    self._handle(event)
                self._pump()
        except (OSError, ProtocolError):
            pass  # the daemon has gone, and says so where the build was asked for
        finally:
            # It must not wait for answers that nobody gives any more.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _flush(self) -> None:
        waiting = self._http.data_to_send()
        if waiting:
            self._socket.sendall(waiting)

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            assert event.stream_id is not None
            self._begin(event.stream_id, event.headers or [])
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None
            assert event.flow_controlled_length is not None
            with suppress(StreamClosedError):
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._take(event.stream_id, event.data or b"")
        elif isinstance(event, StreamReset):
            self._calls.pop(event.stream_id or 0, None)
        elif isinstance(event, ConnectionTerminated):
            raise ConnectionError("the daemon ends the session")

    def _begin(self, stream: int, headers: Sequence[tuple[str | bytes, str | bytes]]) -> None:
        told: dict[str, list[str]] = {}
        for name, value in headers:
            told.setdefault(str(name), []).append(str(value))
        path = told.get(":path", [""])[0]
        method = self._methods.get(path)
        head = [(":status", "200"), ("content-type", "application/grpc")]
        self._http.send_headers(stream, head)
        if method is None:
            self._end(stream, _UNIMPLEMENTED, f"there is no {path} here")
        elif len(self._calls) >= _MOST_CALLS:
            self._end(stream, _UNKNOWN, "too many calls at once")
        else:
            try:
                self._calls[stream] = _Call(method(told))
            except CallRefused as refused:
                self._end(stream, refused.status, str(refused))

    def _take(self, stream: int, piece: bytes) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        call.come += piece
        while len(call.come) >= _PREFIX.size:
            is_packed, size = _PREFIX.unpack_from(call.come)
            if is_packed or size > _MOST:
                self._end(stream, _UNKNOWN, "a message that cannot be read")
                return
            end = _PREFIX.size + size
            if len(call.come) < end:
                return
            message, call.come = call.come[_PREFIX.size : end], call.come[end:]
            try:
                call.exchange.take(message)
            except (CallRefused, OSError, ValueError) as error:
                self._fail(stream, error)
                return

    def _pump(self) -> None:
        """Give what the calls have, each in its turn, as far as the daemon takes it now."""
        is_moving = True
        while is_moving:
            is_moving = False
            for stream in list(self._calls):
                is_moving |= self._give(stream)
            self._flush()

    def _give(self, stream: int) -> bool:
        """Send a piece of what a call has; whether there was any."""
        call = self._calls[stream]
        if not call.going:
            try:
                message = call.exchange.give()
            except (CallRefused, OSError, ValueError) as error:
                self._fail(stream, error)
                return True
            if message is None:
                if call.exchange.is_over:
                    self._end(stream)
                    return True
                return False
            call.going = _PREFIX.pack(0, len(message)) + message
        room = self._http.local_flow_control_window(stream)
        room = min(room, self._http.max_outbound_frame_size)
        if room <= 0:
            return False
        piece, call.going = call.going[:room], call.going[room:]
        self._http.send_data(stream, piece)
        return True

    def _fail(self, stream: int, error: Exception) -> None:
        status = error.status if isinstance(error, CallRefused) else _UNKNOWN
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._end(stream, status, text)

    def _end(self, stream: int, status: int = 0, message: str = "") -> None:
        self._calls.pop(stream, None)
        trailers = [("grpc-status", str(status))]
        if message:
            trailers.append(("grpc-message", _percent(message)))
        try:
            self._http.send_headers(stream, trailers, end_stream=True)
            if status:
                # Whatever the daemon still has to send there, nobody reads.
                self._http.reset_stream(stream, ErrorCodes.NO_ERROR)
        except (ProtocolError, StreamClosedError):
            pass  # it has gone already


def _percent(text: str) -> str:
    """A text as a header has it."""
    return "".join(
        chr(one) if 0x20 <= one <= 0x7E and one != 0x25 else f"%{one:02X}"
        for one in text.encode("utf-8", "replace")
    )
