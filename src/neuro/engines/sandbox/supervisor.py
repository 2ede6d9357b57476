"""The process that looks after one run, from its launch to its exit record.

It is a fork of the zygote and depends on nobody. Clients (the engine's control connection, attach,
exec) come and go. What it knows at the end is written to the run's folder before anyone is told.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import time
import traceback
from dataclasses import asdict
from functools import partial
from typing import Any

from neuro.engines.sandbox import (
    cgroups,
    entering,
    execution,
    kernel,
    launch,
    layout,
    wire,
)
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.client import Client
from neuro.engines.sandbox.ending import LOST, Ending, conclude
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog
from neuro.engines.sandbox.pasta import Pasta
from neuro.engines.sandbox.watching import Watch

_CHILD_PID = re.compile(rb'"child-pid": (\d+)[,\s]')
_FAREWELL = 10.0  # seconds that a slow client of a finished run is given
_FIONREAD = 0x541B


def supervise(plan: launch.Plan, name: str, zygote: socket.socket) -> None:
    """Make the berth ``name``, wait for a run, look after it. Returns when all is cleaned up."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kernel.become_subreaper()
    berth = Berth(plan, name)
    berth.make()
    given = receive_run(zygote)
    if given is None:
        berth.discard()
        return
    request, listener = given
    kernel.set_name("neuro-job")
    folder = layout.run_folder(plan.folder, request.job_id, request.run)
    try:
        Supervisor(plan, request, folder, listener, berth).run()
    except BaseException:
        with open(f"{folder}/fault", "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)


def hand_over(supervisor: socket.socket, request: bytes, listener: socket.socket) -> None:
    """Give a run to a supervisor that waits for one. Raises OSError where it is gone."""
    with open(os.memfd_create("request"), "r+b", buffering=0) as file:
        file.write(request)
        socket.send_fds(supervisor, [b"r"], [file.fileno(), listener.fileno()])


def receive_run(zygote: socket.socket) -> tuple[launch.Request, socket.socket] | None:
    """What ``hand_over`` gave; None where the zygote is gone."""
    _, given = wire.receive_descriptors(zygote, 1, 2)
    zygote.close()
    if len(given) != 2:
        return None
    with open(given[0], "rb") as file:
        file.seek(0)
        return launch.request_from(json.load(file)), socket.socket(fileno=given[1])


class Supervisor:
    """The state of one run and what may happen to it."""

    def __init__(
        self,
        plan: launch.Plan,
        request: launch.Request,
        folder: str,
        listener: socket.socket,
        berth: Berth,
    ) -> None:
        self._plan = plan
        self._berth = berth
        self._request = request
        self._folder = folder
        # Once the end is told, the job may be removed and another begin under its name.
        self._place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = listener
        self._loop = Loop()
        self._clients: set[Client] = set()
        self._attached: set[Client] = set()
        self._executions: set[execution.Execution] = set()
        self._log = OutputLog(layout.output_folder(plan.folder, request.job_id), plan.retention)
        self._began_at = self._log.end
        self._group = berth.group
        self._sandbox = 0
        self._info: int | None = None
        self._told = b""
        self._gate: int | None = None
        self._gate_opened = False
        self._settled: int | None = None
        self._init: int | None = None
        self._init_gone = False
        self._status: int | None = None
        self._started: int | None = None
        self._stopping = False
        self._killed = False
        self._exceeded = False
        self._record: dict[str, Any] | None = None
        self._outlet: PipeOutlet | TerminalOutlet | None = None
        self._watch: Watch | None = None
        self._pasta: Pasta | None = None

    def run(self) -> None:
        """Launch, serve, conclude, clean up."""
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), READ, lambda _: self._accept())
        try:
            layout.keep_room(self._folder)
            self._launch()
        except (OSError, ValueError) as error:
            self._berth.discard()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            self._conclude(Ending.cannot_start(str(reason)))
        self._loop.run()
        self._clear()

    def _clear(self) -> None:
        """Delete the private files. What cannot go is left to the next server's start."""
        try:
            self._berth.clear(f"/proc/self/fd/{self._place}/layers")
        except OSError:
            pass

    # Launch.

    def _launch(self) -> None:
        self._write_state()
        layers = self._berth.occupy(self._folder)
        self._group.limit(
            cgroups.Limits(self._request.cpu, self._request.memory, self._plan.processes)
        )
        outlet_type = TerminalOutlet if self._request.tty else PipeOutlet
        self._outlet = outlet_type(self._loop, self._log, self._written, self._output_over)
        prepared = launch.prepare(self._plan, self._request, layers)
        self._berth.begin(prepared, self._outlet.inner)
        self._outlet.begin()
        self._sandbox = self._berth.pid
        self._loop.on_exit(self._sandbox, self._sandbox_ended)
        self._loop.watch(prepared.info, READ, lambda _: self._read_info())
        self._info, self._gate = prepared.info, prepared.gate
        self._settled = prepared.settled
        os.set_blocking(self._info, False)
        self._loop.watch(self._gate, 0, lambda _: self._gate_passed())
        if not self._held_at_gate():
            self._open_gate()

    def _write_state(self) -> None:
        """What is needed to clean up after us if we vanish."""
        me = os.getpid()
        record = {
            "supervisor": [me, kernel.process_start(me)],
            "init": [self._init, kernel.process_start(self._init)] if self._init else None,
            "pasta": [self._pasta.pid, kernel.process_start(self._pasta.pid)]
            if self._pasta
            else None,
            "groups": asdict(self._plan.groups),
            "berth": self._berth.name,
        }
        layout.add_state(f"{self._folder}/{layout.STATE}", record)

    def _held_at_gate(self) -> bool:
        """Whether something is to be done to the sandbox's init before the command begins."""
        return self._plan.groups.version == 0 or self._plan.network.kind == launch.PASTA

    def _read_info(self) -> None:
        """The first words of bubblewrap: the pid of the init of its new pid namespace."""
        if self._info is None:
            return
        try:
            told = os.read(self._info, 4096)
        except BlockingIOError:
            return
        if not told:  # only now: it writes in portions, and dies of a closed pipe
            self._loop.forget(self._info)
            os.close(self._info)
            self._info = None
        self._told += told
        found = _CHILD_PID.search(self._told)
        if found is None or self._init is not None:
            return
        self._init = int(found[1])
        try:
            self._loop.on_exit(self._init, self._init_ended)
        except ProcessLookupError:
            self._init_gone = True
            return
        self._write_state()
        if self._held_at_gate():
            self._prepare_init(self._init)

    def _prepare_init(self, init: int) -> None:
        if self._plan.groups.version == 0:
            self._watch = Watch(
                self._loop,
                init,
                memory=self._request.memory,
                processes=self._plan.processes,
                on_excess=self._memory_exceeded,
            )
        if self._settled is None:
            self._open_gate()
        else:
            self._loop.watch(self._settled, 0, lambda _: self._make_network(init))

    def _make_network(self, init: int) -> None:
        """The sandbox's network namespace is there: let pasta connect it to the world."""
        if self._settled is None:
            return
        self._loop.forget(self._settled)
        os.close(self._settled)
        self._settled = None
        network = self._plan.network
        self._pasta = Pasta(self._loop, network, init, self._folder, self._pasta_ready)
        self._write_state()

    def _pasta_ready(self, worked: bool) -> None:
        if worked:
            self._open_gate()
        else:
            self._outlet_write(b"the network of the job cannot be made: pasta failed\n")
            self._kill()

    def _open_gate(self) -> None:
        if self._gate is None:
            return
        self._gate_opened = True
        try:
            os.write(self._gate, b"g")
        except OSError:
            pass

    def _outlet_write(self, text: bytes) -> None:
        try:
            self._log.write(text)
        except OSError:
            pass

    def _gate_passed(self) -> None:
        """The reading end of the gate is closed: the command begins, or the sandbox died."""
        if self._gate is None:
            return
        self._loop.forget(self._gate)
        unread = int.from_bytes(fcntl.ioctl(self._gate, _FIONREAD, b"\0" * 4), "little")
        os.close(self._gate)
        self._gate = None
        if unread or not self._gate_opened or self._init is None:
            return
        self._started = time.time_ns()
        self._tell(wire.json_frame(wire.STARTED, {"at": self._started, "init": self._init}))
        if self._stopping:
            self._terminate()

    # The end.

    def _sandbox_ended(self) -> None:
        _, self._status = os.waitpid(self._sandbox, 0)
        self._read_info()  # both may be here at once, and this handler came first
        self._gate_passed()
        if self._init is None:
            self._init_gone = True
        else:
            self._send_kill()
        self._perhaps_over()

    def _init_ended(self) -> None:
        """Every process of the pid namespace is gone: that is what its init waits for."""
        self._init_gone = True
        try:
            os.waitpid(self._init or -1, os.WNOHANG)
        except ChildProcessError:
            pass
        self._perhaps_over()

    def _output_over(self) -> None:
        self._perhaps_over()

    def _perhaps_over(self) -> None:
        if self._record is not None or self._status is None or not self._init_gone:
            return
        assert self._outlet is not None
        if not self._outlet.over:
            self._outlet.drain()  # calls back here when it is done, however full the disk is
            if not self._outlet.over:
                self._clear()  # no process is left, and its files may be what fills the disk
            return
        exceeded = self._exceeded or _asked(self._group.out_of_memory)
        self._conclude(
            conclude(
                status=self._status,
                started=self._started is not None,
                stopping=self._stopping,
                killed=self._killed,
                out_of_memory=exceeded,
                shared_network=self._plan.network.kind == launch.SHARED,
                output=self._log.read_since(self._began_at, 4096),
                last_output=self._log.read_since(max(self._began_at, self._log.end - 4096), 4096),
            )
        )

    def _conclude(self, ending: Ending) -> None:
        if self._watch is not None:
            self._watch.end()
        if self._pasta is not None:
            self._pasta.end()
        self._group.kill()
        self._group.remove()
        # A client of exec must have its process's end before the run's.
        for one in list(self._executions):
            one.finish()
        self._record = {
            "at": time.time_ns(),
            "started": self._started,
            "output_bytes": self._log.kept(),
            **asdict(ending),
        }
        self._write_record()

    def _write_record(self) -> None:
        assert self._record is not None
        try:
            layout.write_exit(f"/proc/self/fd/{self._place}", self._record)
        except FileNotFoundError:  # somebody deleted the folder: there is no place to write to
            message = "the run's folder was deleted while it ran"
            self._record.update(exit_code=None, cause=LOST, message=message)
        except OSError:
            # The disk is full, perhaps of this run's own files. Nobody is told until it is certain.
            self._clear()
            self._loop.after(0.5, self._write_record)
            return
        self._tell(wire.json_frame(wire.EXITED, self._record))
        for client in list(self._attached):
            client.send(wire.json_frame(wire.CODE, {"code": self._record["exit_code"]}))
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self._loop.after(_FAREWELL, self._leave)
        for client in list(self._clients):
            client.finish()
        self._perhaps_leave()

    def _perhaps_leave(self) -> None:
        if self._record is not None and not self._clients:
            self._leave()

    def _leave(self) -> None:
        self._loop.running = False

    # Signals.

    def _memory_exceeded(self) -> None:
        self._exceeded = True
        self._kill()

    def _kill(self) -> None:
        """SIGKILL to every process of the run, by way of its init if that is known.

        The sandbox's outer process then ends by itself, as if the command had been killed.
        """
        self._killed = True
        self._send_kill()

    def _send_kill(self) -> None:
        if self._init is None and self._status is None:
            pid = self._sandbox
        elif self._init is not None and not self._init_gone:
            pid = self._init
        else:
            return
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass

    def _stop(self, grace: float) -> None:
        if self._record is not None:
            return
        if not self._stopping:
            self._stopping = True
            if self._started is not None:
                self._terminate()
        self._loop.after(max(0.0, grace), self._kill_late)

    def _kill_late(self) -> None:
        if self._record is None and not self._init_gone:
            self._kill()

    def _terminate(self) -> None:
        """SIGTERM to the job's main process, which bubblewrap's init forks first of all."""
        main = entering.main_process(self._init) if self._init is not None else None
        if main is None:
            if self._record is None and not self._init_gone:
                self._loop.after(0.002, self._terminate)  # init is about to fork it
            return
        try:
            os.kill(main, signal.SIGTERM)
        except OSError:
            pass

    # Clients.

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        client = Client(self._loop, connection, self._first_frame)
        self._clients.add(client)
        client.on_close = lambda: self._gone(client)

    def _gone(self, client: Client) -> None:
        self._clients.discard(client)
        self._attached.discard(client)
        self._perhaps_leave()

    def _first_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.CONTROL:
            client.on_frame = self._control
            client.send(wire.json_frame(wire.STATE, self._state()))
        elif kind == wire.ATTACH:
            self._attach(client)
        elif kind == wire.EXEC:
            self._execute(client, payload)
        elif kind == wire.CONNECT:
            self._connect(client)
        else:
            client.close()

    def _state(self) -> dict[str, Any]:
        return {
            "started": self._started,
            "init": self._init,
            "memory": self._request.memory,
            "groups": asdict(self._plan.groups),
            "berth": self._berth.name,
            "network": self._plan.network.kind,
            "gpus": list(self._request.gpus),
        }

    def _control(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.STOP:
            self._stop(float(json.loads(payload)["grace"]))
        elif kind == wire.FOLLOW:
            client.follow = wire.OFFSET.unpack(payload)[0]
            self._written()

    def _written(self) -> None:
        for client in self._clients:
            if client.follow is not None and self._log.end > client.follow:
                client.follow = None
                client.send(wire.frame(wire.WROTE, wire.OFFSET.pack(self._log.end)))

    def _tell(self, message: bytes) -> None:
        for client in list(self._clients):
            if client not in self._attached and client.on_frame == self._control:
                client.send(message)

    def _attach(self, client: Client) -> None:
        self._attached.add(client)
        client.on_frame = self._attached_frame
        opened = {"end": self._log.end, "tty": self._request.tty}
        client.send(wire.json_frame(wire.OPENED, opened))

    def _attached_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if not isinstance(self._outlet, TerminalOutlet):
            return  # the stdin of a job without a terminal is empty
        if kind == wire.INPUT:
            self._outlet.feed(payload, self._pause_attached)
        elif kind == wire.INPUT_END:
            self._outlet.feed(execution.END_OF_FILE, self._pause_attached)
        elif kind == wire.RESIZE:
            self._outlet.resize(payload)

    def _pause_attached(self, blocked: bool) -> None:
        for client in self._attached:
            client.read_on(not blocked)

    def _execute(self, client: Client, payload: bytes) -> None:
        argv, tty = execution.argv_of(payload)
        init = self._init
        if self._started is None or init is None or self._init_gone:
            client.send(wire.json_frame(wire.OPENED, {"error": "not running"}))
            client.finish()
            return

        def spawn(streams: tuple[int, int, int]) -> int:
            return entering.execute(
                self._plan, self._request, self._group, init, argv, streams, tty=tty
            )

        client.send(wire.json_frame(wire.OPENED, {}))
        closing = client.on_close
        terminal = partial(entering.open_terminal, init) if tty else None
        try:
            one = execution.Execution(
                self._loop, client, spawn, terminal=terminal, on_over=self._executions.discard
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
        init = self._init
        if init is not None and not self._init_gone:
            try:
                entering.socket_inside(self._plan, init, client.connection)
            except OSError:
                pass
        client.finish()


def _asked(question: Any) -> bool:
    try:
        return bool(question())
    except OSError:
        return False
