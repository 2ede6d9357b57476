"""Receives whoever connects to a run: the engine's control connection, attach, exec, connect.

Clients come and go, and the run depends on none of them.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from neuro.engines.sandbox import execution, wire
from neuro.engines.sandbox.client import Client
from neuro.engines.sandbox.ending import ExitRecord
from neuro.engines.sandbox.inlet import Inlet, PipeInlet
from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog

_SENDER_SECONDS = 15 * 60.0  # that the input waits for whoever sends it
_FAREWELL = 10.0  # seconds that a slow client of a finished run is given


class Run(Protocol):
    """What clients may learn of a run, and do with it."""

    @property
    def first_process(self) -> int | None:
        """The run's first process while there is one: others can enter the run."""

    @property
    def is_started(self) -> bool:
        """Whether the command has begun."""

    def state(self) -> dict[str, Any]:
        """What the engine must know of the run."""

    def stop(self, grace: float) -> None:
        """End the run: SIGTERM now, SIGKILL after ``grace`` seconds."""

    def spawn(
        self,
        init: int,
        command: tuple[Sequence[str], bool],
        streams: tuple[int, int, int],
        word: int,
    ) -> int:
        """Start ``command``, an argv and whether it has a terminal, inside. Returns its pid."""

    def open_terminal(self, init: int) -> tuple[int, int]:
        """A terminal (master, slave) of the run's own."""

    def hand_over_socket(self, init: int, client: socket.socket) -> None:
        """Send ``client`` a TCP socket that lives in the run's network."""


class Reception:
    """The clients of one run. The loop ends when the run has and they are served."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        log: OutputLog,
        run: Run,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._log = log
        self._run = run
        self._outlet: PipeOutlet | TerminalOutlet | None = None
        self._inlet: Inlet | None = None
        self._clients: set[Client] = set()
        self._attached: set[Client] = set()
        self._senders: set[Client] = set()  # those of them that may send input
        self._executions: set[execution.Execution] = set()
        self._blocked = False  # the run's input takes no more at the moment
        self._deserted_since: float | None = None
        self._closed = False

    def open(self) -> None:
        """Accept clients from now on."""
        self._loop.accept(self._listener, self._accept)

    def join(self, outlet: PipeOutlet | TerminalOutlet, inlet: Inlet | None) -> None:
        """Let clients who attach resize the run's terminal, and write to its input."""
        self._outlet = outlet
        self._inlet = inlet
        if isinstance(inlet, PipeInlet):
            self._wait_for_sender()

    def close(self, record: ExitRecord) -> None:
        """Tell everybody of the end, which ``record`` is, and let go of them."""
        self._closed = True
        self.tell(wire.json_frame(wire.EXITED, record.as_json()))
        for client in list(self._attached):
            client.send(wire.json_frame(wire.CODE, {"code": record.exit_code}))
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self._loop.after(_FAREWELL, self._leave)
        for client in list(self._clients):
            client.finish()
        self._perhaps_leave()

    # What the run tells.

    def tell(self, message: bytes) -> None:
        """Send a frame to the control connections."""
        for client in list(self._clients):
            if client not in self._attached and client.on_frame == self._control:
                client.send(message)

    def written(self) -> None:
        """Tell those who follow the output that there is more of it."""
        for client in self._clients:
            if client.follow is not None and self._log.end > client.follow:
                client.follow = None
                client.send(wire.frame(wire.WROTE, wire.OFFSET.pack(self._log.end)))

    def input_changed(self) -> None:
        """Tell those who send input how much of it was taken, and whether it is closed."""
        assert self._inlet is not None
        for client in list(self._senders):
            client.send_newest(wire.frame(wire.INPUT_TAKEN, wire.OFFSET.pack(self._inlet.taken)))
            if self._inlet.closed:
                client.send(wire.frame(wire.INPUT_CLOSED))

    def pause_senders(self, blocked: bool) -> None:
        """Read no more input while the run is ``blocked``, also from who comes meanwhile."""
        self._blocked = blocked
        for client in self._senders:
            client.read_on(not blocked)

    def end_executions(self) -> None:
        """Tell the clients of exec how their commands ended: before they hear of the run's end."""
        for one in list(self._executions):
            one.finish()

    # Coming and going.

    def _accept(self, connection: socket.socket) -> None:
        client = Client(self._loop, connection, self._first_frame)
        self._clients.add(client)
        client.on_close = lambda: self._gone(client)

    def _gone(self, client: Client) -> None:
        self._clients.discard(client)
        self._attached.discard(client)
        if client in self._senders:
            self._senders.discard(client)
            self._wait_for_sender()
        self._perhaps_leave()

    def _perhaps_leave(self) -> None:
        if self._closed and not self._clients:
            self._leave()

    def _leave(self) -> None:
        self._loop.running = False

    def _wait_for_sender(self) -> None:
        """End the input if nobody comes: a server may be restarting, and its sender come back."""
        if not self._senders:
            self._deserted_since = time.monotonic()
            self._loop.after(_SENDER_SECONDS, self._end_deserted_input)

    def _end_deserted_input(self) -> None:
        since = self._deserted_since
        if since is None or time.monotonic() - since < _SENDER_SECONDS:
            return  # somebody came in the meantime, and may have left again
        if isinstance(self._inlet, PipeInlet):
            self._inlet.end()

    # What clients ask for.

    def _first_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.CONTROL:
            client.on_frame = self._control
            client.send(wire.json_frame(wire.STATE, self._run.state()))
        elif kind == wire.ATTACH:
            self._attach(client, sends=bool(json.loads(payload)["stdin"]))
        elif kind == wire.EXEC:
            self._execute(client, payload)
        elif kind == wire.CONNECT:
            self._connect(client)
        else:
            client.close()

    def _control(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.STOP:
            self._run.stop(float(json.loads(payload)["grace"]))
        elif kind == wire.FOLLOW:
            client.follow = wire.OFFSET.unpack(payload)[0]
            self.written()

    def _attach(self, client: Client, *, sends: bool) -> None:
        self._attached.add(client)
        if sends:
            self._senders.add(client)
            self._deserted_since = None
            client.read_on(not self._blocked)
        client.on_frame = self._attached_frame
        inlet = self._inlet
        opened = {"end": self._log.end, "taken": inlet.taken if inlet is not None else 0}
        client.send(wire.json_frame(wire.OPENED, opened))
        if inlet is None or inlet.closed:
            client.send(wire.frame(wire.INPUT_CLOSED))

    def _attached_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.RESIZE and isinstance(self._outlet, TerminalOutlet):
            self._outlet.resize(payload)
        elif self._inlet is None or client not in self._senders:
            return
        elif kind == wire.INPUT:
            self._inlet.write(payload)
        elif kind == wire.INPUT_END:
            self._inlet.end()

    def _execute(self, client: Client, payload: bytes) -> None:
        command = execution.argv_of(payload)
        init = self._run.first_process
        if not self._run.is_started or init is None:
            client.send(wire.json_frame(wire.OPENED, {"error": "not running"}))
            client.finish()
            return
        client.send(wire.json_frame(wire.OPENED, {"taken": 0}))
        closing = client.on_close
        _, tty = command
        terminal = partial(self._run.open_terminal, init) if tty else None
        try:
            one = execution.Execution(
                self._loop,
                client,
                partial(self._run.spawn, init, command),
                terminal=terminal,
                on_over=self._executions.discard,
            )
        except OSError as error:
            text = f"the command cannot be started: {error.strerror}\n".encode()
            client.send(wire.frame(wire.ERROR_OUTPUT, text))
            client.send(wire.json_frame(wire.CODE, {"code": 126}))
            client.finish()
            return
        self._executions.add(one)
        ending = client.on_close

        def closed() -> None:
            for action in (ending, closing):
                if action is not None:
                    action()

        client.on_close = closed

    def _connect(self, client: Client) -> None:
        init = self._run.first_process
        if init is not None:
            try:
                self._run.hand_over_socket(init, client.connection)
            except OSError:
                pass
        client.finish()
