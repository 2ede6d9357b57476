"""The process that looks after one run, from its launch to its exit record.

It is a fork of the zygote and depends on nobody. Clients (the engine's control connection, attach,
exec) come and go. What it knows at the end is written to the run's folder before anyone is told.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import traceback
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from neuro.engines.sandbox import (
    cgroups,
    entering,
    execution,
    kernel,
    launch,
    launcher,
    layout,
    neighbours,
    network,
    watching,
    wire,
)
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.client import Client
from neuro.engines.sandbox.disk import DiskWatch, entries_for
from neuro.engines.sandbox.ending import LOST, Ending, conclude
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.inlet import Inlet, PipeInlet
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog
from neuro.engines.sandbox.pasta import Pasta
from neuro.engines.sandbox.watching import Watch

_FOLDER_SECONDS = 5.0  # between two looks at whether the run's folder is there
_SENDER_SECONDS = 15 * 60.0  # that the input waits for whoever sends it
_FAREWELL = 10.0  # seconds that a slow client of a finished run is given


def supervise(plan: launch.Plan, name: str, block: Block, zygote: socket.socket) -> None:
    """Make the berth ``name``, wait for a run, look after it. Returns when all is cleaned up."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    berth = Berth(plan, name, block)
    berth.make(zygote)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    given = receive_run(zygote)
    if given is None:
        berth.discard()
        return
    request, listener = given
    kernel.set_name("neuro-job")
    folder = layout.run_folder(plan.folder, request.job_id, request.run)
    try:
        Supervisor(plan, request, folder, listener, berth, block).run()
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
        block: Block,
    ) -> None:
        self._plan = plan
        self._berth = berth
        self._block = block
        self._request = request
        self._folder = folder
        # Once the end is told, the job may be removed and another begin under its name.
        self._place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = listener
        self._loop = Loop()
        self._clients: set[Client] = set()
        self._attached: set[Client] = set()
        self._senders: set[Client] = set()  # those of them that may send input
        self._executions: set[execution.Execution] = set()
        self._log = OutputLog(layout.output_folder(plan.folder, request.job_id), plan.retention)
        self._began_at = self._log.end
        self._group = berth.group
        self._prepared: launch.Prepared | None = None
        self._neighbour = (neighbours.NOBODY, "")
        self._word: int | None = None
        self._refusal: tuple[int, str] | None = None
        self._init: int | None = None
        self._command_status: int | None = None
        self._init_status: int | None = None
        self._started: int | None = None
        self._stopping = False
        self._killed = False
        self._exceeded = False
        self._record: dict[str, Any] | None = None
        self._outlet: PipeOutlet | TerminalOutlet | None = None
        self._inlet: Inlet | None = None
        self._watch: Watch | None = None
        self._disk_watch: DiskWatch | None = None
        self._disk_excess: str | None = None
        self._pasta: Pasta | None = None

    def run(self) -> None:
        """Launch, serve, conclude, clean up."""
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), READ, lambda _: self._accept())
        try:
            layout.keep_room(self._folder)
            self._settle()
        except OSError as error:
            self._refuse(Ending.not_ready(launcher.reason_of(error)))
        else:
            try:
                self._launch()
            except (OSError, ValueError) as error:
                self._refuse(Ending.cannot_start(launcher.reason_of(error)))
        self._loop.after(_FOLDER_SECONDS, self._look_at_folder)
        self._loop.run()
        self._clear()

    def _refuse(self, ending: Ending) -> None:
        self._berth.discard()
        self._conclude(ending)

    def _look_at_folder(self) -> None:
        """End a run whose folder somebody deleted: it could neither say its end nor be found."""
        if self._record is None:
            if os.fstat(self._place).st_nlink == 0:
                self._kill()
            self._loop.after(_FOLDER_SECONDS, self._look_at_folder)

    def _clear(self) -> None:
        """Delete the private files. What cannot go is left to the next server's start."""
        try:
            layout.remove_tree(f"/proc/self/fd/{self._place}/layers")
        except OSError:
            pass

    # Launch.

    def _settle(self) -> None:
        """Take the berth, which is the same for every run. Raises OSError."""
        self._write_state()
        self._berth.occupy(self._folder)
        self._group.check()

    def _launch(self) -> None:
        berth = self._berth
        self._group.limit(
            cgroups.Limits(self._request.cpu, self._request.memory, self._plan.processes)
        )
        if self._plan.groups.version == 0:
            cores = launch.cores_for(self._request.cpu)
            for pid in (berth.init, berth.command):
                os.sched_setaffinity(pid, cores)
        self._meet_neighbours()
        self._prepared = launch.prepare(self._plan, self._request, self._block)
        self._open_streams()
        self._init = berth.init
        self._loop.on_exit(berth.init, self._init_ended)
        self._loop.on_exit(berth.command, self._command_ended)
        if self._plan.network.kind == launch.PASTA:
            self._pasta = Pasta(
                self._loop, self._plan.network, berth.init, self._folder, self._pasta_ready
            )
        else:
            self._begin()
        self._write_state()

    def _open_streams(self) -> None:
        towards = self._loop, self._log, self._written, self._output_over
        if self._request.tty:
            self._outlet = TerminalOutlet(
                *towards,
                entering.open_terminal(self._berth.init),
                keyboard=self._request.stdin,
                pause=self._pause_senders,
                on_change=self._input_changed,
            )
            self._inlet = self._outlet if self._request.stdin else None
        elif self._request.stdin and self._request.run == 0:
            # What was sent to the first run is not there to be sent to the next.
            inlet = PipeInlet(self._loop, self._pause_senders, self._input_changed)
            self._inlet = inlet
            self._outlet = PipeOutlet(*towards, inlet.inner)
            self._loop.after(_SENDER_SECONDS, self._end_deserted_input)
        else:
            self._outlet = PipeOutlet(*towards, None)

    def _meet_neighbours(self) -> None:
        """Let the runs with the same label know this one, and reach it."""
        request, folder = self._request, self._plan.folder
        if self._plan.network.kind != launch.OWN or not request.neighbours:
            return
        names = (request.hostname, *request.names)
        number = neighbours.announce(folder, request.neighbours, self._berth.address, names)
        self._neighbour = (number, self._berth.address)
        network.join_group(self._berth.address, number)
        if number != neighbours.NOBODY:
            hosts = (neighbours.hosts_file(folder, number), "/etc/hosts", True)
            self._request = replace(request, mounts=(*request.mounts, hosts))

    def _leave_neighbours(self) -> None:
        try:
            neighbours.withdraw(self._plan.folder, *self._neighbour)
        except OSError:
            pass  # the next server's start finds that its network is gone

    def _begin(self) -> None:
        """Let the second process become the command."""
        assert self._prepared is not None
        assert self._outlet is not None
        self._word, word = os.pipe()
        self._loop.watch(self._word, READ, lambda _: self._read_word())
        try:
            self._berth.begin(self._prepared, self._folder, (*self._outlet.inner, word))
        finally:
            os.close(word)
        self._prepared = None
        self._outlet.begin()
        if self._plan.groups.version == 0:
            self._watch = Watch(
                self._loop,
                self._berth.init,
                cores=os.sched_getaffinity(self._berth.init),
                memory=self._request.memory,
                on_excess=self._memory_exceeded,
            )
        if self._request.disk:
            self._disk_watch = DiskWatch(
                self._loop,
                f"/proc/self/fd/{self._place}/layers",
                limit=self._request.disk,
                inodes=entries_for(self._request.disk),
                on_excess=self._disk_exceeded,
                processes=partial(watching.processes, self._berth.init),
            )

    def _write_state(self) -> None:
        """What is needed to clean up after us if we vanish."""
        record = {
            "supervisor": _identity(os.getpid()),
            "init": _identity(self._init),
            "pasta": _identity(self._pasta.pid if self._pasta else None),
            "groups": asdict(self._plan.groups),
            "berth": self._berth.name,
            "neighbour": self._neighbour,
        }
        layout.add_state(f"{self._folder}/{layout.STATE}", record)

    def _pasta_ready(self, worked: bool) -> None:
        reason = "the network of the job cannot be made"
        if worked:
            try:
                self._begin()
            except (OSError, ValueError) as error:
                reason = launcher.reason_of(error)
            else:
                return
        self._refusal = (launcher.NOT_EXECUTABLE, reason)
        self._abandon()

    def _abandon(self) -> None:
        """Nothing was begun: what waits for it can go."""
        assert self._prepared is not None
        assert self._outlet is not None
        for tree in self._prepared.trees:
            os.close(tree)
        self._outlet.begin()
        self._kill()

    def _read_word(self) -> None:
        """Why the command cannot begin; at the end of the pipe without a word it has begun."""
        if self._word is None:
            return
        said = os.read(self._word, 4096)
        if said:
            self._refusal = self._refusal or launcher.refusal(said)
            return
        self._loop.forget(self._word)
        os.close(self._word)
        self._word = None
        if self._refusal is not None or self._killed_before_start():
            return
        self._started = time.time_ns()
        self._tell(wire.json_frame(wire.STARTED, {"at": self._started, "init": self._init}))
        if self._stopping:
            self._terminate()

    def _killed_before_start(self) -> bool:
        return self._init_status not in (None, 0)

    # The end.

    def _command_ended(self) -> None:
        """Nothing of the run outlives its command."""
        if self._record is not None:  # it could not be begun, and was waited for then
            return
        _, self._command_status = os.waitpid(self._berth.command, 0)
        self._berth.release_init()

    def _init_ended(self) -> None:
        """Every process of the pid namespace is gone: that is what its init waits for."""
        if self._record is not None:
            return
        _, self._init_status = os.waitpid(self._berth.init, 0)
        self._read_word_to_its_end()
        self._perhaps_over()

    def _read_word_to_its_end(self) -> None:
        while self._word is not None:
            self._read_word()

    def _output_over(self) -> None:
        self._perhaps_over()

    def _perhaps_over(self) -> None:
        if self._record is not None or self._init_status is None or self._command_status is None:
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
                # Our first process ends by itself; what ends it besides ends the run.
                status=self._init_status or _as_shells_tell(self._command_status),
                started=self._started is not None,
                stopping=self._stopping,
                killed=self._killed,
                out_of_memory=exceeded,
                shared_network=self._plan.network.kind == launch.SHARED,
                refusal=self._refusal,
                last_output=self._log.read_since(max(self._began_at, self._log.end - 4096), 4096),
                disk_excess=self._disk_excess,
                signal=_signal_of(self._command_status),
            )
        )

    def _conclude(self, ending: Ending) -> None:
        for watch in (self._watch, self._disk_watch):
            if watch is not None:
                watch.end()
        if self._pasta is not None:
            self._pasta.end()
        self._group.kill()
        self._group.remove()
        self._leave_neighbours()
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

    def _disk_exceeded(self, sentence: str) -> None:
        self._disk_excess = sentence
        self._kill()

    def _memory_exceeded(self) -> None:
        self._exceeded = True
        self._kill()

    def _kill(self) -> None:
        """SIGKILL to every process of the run, by way of its init."""
        self._killed = True
        self._send_kill()

    def _send_kill(self) -> None:
        if self._init is None or self._init_status is not None:
            return
        try:
            os.kill(self._init, signal.SIGKILL)
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
        if self._record is None and self._init_status is None:
            self._kill()

    def _terminate(self) -> None:
        """SIGTERM to the job's main process, unless it has just ended."""
        if self._command_status is None:
            os.kill(self._berth.command, signal.SIGTERM)

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
        if client in self._senders:
            self._senders.discard(client)
            # Its server may be restarting: the sender comes back and goes on where it was.
            self._loop.after(_SENDER_SECONDS, self._end_deserted_input)
        self._perhaps_leave()

    def _end_deserted_input(self) -> None:
        if isinstance(self._inlet, PipeInlet) and not self._senders:
            self._inlet.end()

    def _first_frame(self, client: Client, kind: int, payload: bytes) -> None:
        if kind == wire.CONTROL:
            client.on_frame = self._control
            client.send(wire.json_frame(wire.STATE, self._state()))
        elif kind == wire.ATTACH:
            self._attach(client, sends=bool(json.loads(payload)["stdin"]))
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

    def _attach(self, client: Client, *, sends: bool) -> None:
        self._attached.add(client)
        if sends:
            self._senders.add(client)
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

    def _input_changed(self) -> None:
        assert self._inlet is not None
        for client in list(self._senders):
            client.send(wire.frame(wire.INPUT_TAKEN, wire.OFFSET.pack(self._inlet.taken)))
            if self._inlet.closed:
                client.send(wire.frame(wire.INPUT_CLOSED))

    def _pause_senders(self, blocked: bool) -> None:
        for client in self._senders:
            client.read_on(not blocked)

    def _execute(self, client: Client, payload: bytes) -> None:
        argv, tty = execution.argv_of(payload)
        init = self._init
        if self._started is None or init is None or self._init_status is not None:
            client.send(wire.json_frame(wire.OPENED, {"error": "not running"}))
            client.finish()
            return

        def spawn(streams: tuple[int, int, int], word: int) -> int:
            return entering.execute(
                self._plan, self._request, self._group, init, argv, streams, word, tty=tty
            )

        client.send(wire.json_frame(wire.OPENED, {"taken": 0}))
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
        if init is not None and self._init_status is None:
            try:
                entering.socket_inside(self._plan, init, client.connection)
            except OSError:
                pass
        client.finish()


def _identity(pid: int | None) -> list[int | None] | None:
    """A process as ``leftovers`` knows it again."""
    return [pid, kernel.process_start(pid)] if pid else None


def _signal_of(status: int) -> int | None:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def _as_shells_tell(status: int) -> int:
    return execution.exit_code(status) << 8


def _asked(question: Any) -> bool:
    try:
        return bool(question())
    except OSError:
        return False
