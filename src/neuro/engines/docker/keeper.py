"""The process that looks after one run, from its order to its exit record.

It depends on nobody: the server may be killed and come back as often as it likes. The output comes
straight from the run's processes, so it is whole whatever becomes of the daemon. What it knows at
the end is written to the run's folder before anyone is told.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from neuro.engines.docker import door, executing, making
from neuro.engines.docker.api import Daemon
from neuro.engines.docker.belongings import Belongings
from neuro.engines.docker.errands import Errands
from neuro.engines.docker.images import CannotPull
from neuro.engines.docker.layers import upper_layer
from neuro.engines.docker.order import Order
from neuro.engines.docker.processes import Processes
from neuro.engines.sandbox import entering, layout, wire
from neuro.engines.sandbox.allowance import Allowance
from neuro.engines.sandbox.ending import (
    CANNOT_START,
    ERROR,
    LOST,
    OUT_OF_MEMORY,
    Ending,
    ExitRecord,
    conclude,
)
from neuro.engines.sandbox.execution import exit_code
from neuro.engines.sandbox.inlet import Inlet, PipeInlet
from neuro.engines.sandbox.loop import READ, Loop
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog, Retention
from neuro.engines.sandbox.oversight import Oversight
from neuro.engines.sandbox.processes import identity
from neuro.engines.sandbox.reception import Reception

_STOPPED = Ending(128 + signal.SIGTERM, ERROR, "it was stopped before it began")
_GONE = "its container was ended by somebody else, or the Docker daemon was"
_UNMAKE_SECONDS, _TRY_AGAIN = 30.0, 0.5  # for a daemon to remove a container; between two tries


class Keeper:
    """The state of one run and what may happen to it."""

    def __init__(self, order: Order, folder: str, listener: socket.socket, users: int) -> None:
        """``users`` is how the storage's files get to be the container's: see ``volumes``."""
        self._order = order
        self._spec = order.spec
        self._folder = folder
        # Once the end is told, the job may be removed and another begin under its name.
        self._place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._daemon = Daemon(order.socket, order.version, is_podman=order.is_podman)
        self._loop = Loop(Allowance.of_run(order.spec.cpu))
        self._errands = Errands(self._loop)
        retention = Retention(order.log_limit, order.log_portion)
        output = layout.output_folder(order.folder, order.spec.job_id)
        self._log = OutputLog(output, retention)
        self._reception = Reception(self._loop, listener, self._log, self)
        self._word = secrets.token_hex(16)
        self._oversight = Oversight(self._loop, self._kill)
        self._door: door.Door | None = None
        self._belongings = Belongings(order, self._place, folder, users)
        self._made: making.Made | None = None
        self._begun: door.Word | None = None
        self._outlet: PipeOutlet | TerminalOutlet | None = None
        self._processes: Processes | None = None
        self._started: int | None = None
        self._waiting: dict[str, Any] | None = None
        self._turn = threading.Lock()
        self._is_pulling = True
        self._is_made = False
        self._stopping = False
        self._is_over = False
        self._record: ExitRecord | None = None

    def run(self) -> None:
        """Make, serve, conclude, clean up."""
        self._reception.open()
        self._write_state()
        try:
            mounts = self._belongings.prepare()
            self._door = self._belongings.open_door()
            self._loop.watch(self._door.listener.fileno(), READ, self._knocked)
        except ValueError as error:  # what was asked for is impossible
            self._conclude(Ending.cannot_start(str(error)))
        except OSError as error:  # it is this machine that cannot do it now
            self._conclude(Ending.not_ready(error.strerror or str(error)))
        else:
            work = partial(
                making.make,
                *(self._daemon, self._order, mounts, self._word),
                lambda progress: self._errands.tell(partial(self._pulling, progress)),
                self._check_wanted,
                self._end_of_pull,
                lambda made: self._errands.tell(partial(setattr, self, "_made", made)),
            )
            self._errands.run(work, self._was_made)
        self._loop.run()
        self._belongings.clear()

    # Making.

    def _check_wanted(self) -> None:
        if self._stopping:
            raise making.Stopped

    def _end_of_pull(self) -> None:
        """The container is made now, unless nobody wants it: whoever stops the run can rely on it.

        Called in the thread that makes it.
        """
        with self._turn:
            self._check_wanted()
            self._is_pulling = False

    def _pulling(self, progress: float) -> None:
        if self._record is None:
            self._waiting = {"at": time.time_ns(), "progress": progress}
            self._reception.tell(wire.json_frame(wire.WAITING, self._waiting))

    def _was_made(self, result: Exception | None) -> None:
        self._belongings.release()
        if result is None:
            self._is_made = True
            if self._processes is None:
                self._loop.after(door.PATIENCE, self._expect)
            self._perhaps_over()
        elif isinstance(result, making.Stopped):
            self._refuse(_STOPPED)
        elif isinstance(result, CannotPull):
            self._refuse(Ending(None, result.cause, str(result)))
        elif isinstance(result, making.Impossible):
            self._refuse(Ending(door.NOT_EXECUTABLE, CANNOT_START, str(result)))
        elif isinstance(result, OSError):
            self._refuse(Ending.not_ready(result.strerror or str(result)))
        else:
            self._refuse(Ending.cannot_start(f"Docker's answer was not understood: {result!r}"))

    def _expect(self) -> None:
        if self._processes is None and self._record is None:
            self._refuse(Ending.not_ready("its container did not begin"))

    def _refuse(self, ending: Ending) -> None:
        """The run never begins."""
        if self._record is None and not self._is_over:
            self._is_over = True
            self._unmake(lambda _: self._conclude(ending))

    # Beginning.

    def _knocked(self, _: int) -> None:
        """The run's first process is at the door."""
        assert self._door is not None
        try:
            visitor = self._door.admit(self._word, 0.2)
        except OSError:
            return
        self._loop.forget(self._door.listener.fileno())
        try:
            self._begin(visitor)
        except OSError as error:
            visitor.close()
            self._refuse(Ending.not_ready(error.strerror or str(error)))

    def _begin(self, visitor: door.Visitor) -> None:
        self._processes = Processes(self._loop, visitor.process, self._perhaps_over)
        self._write_state()
        if self._spec.disk and (layer := upper_layer(visitor.process)) is not None:
            self._oversight.watch_disk(layer, visitor.process, self._spec.disk)
        self._open_streams(visitor)
        assert self._outlet is not None
        given = (*(self._spec.entrypoint or ()), *self._spec.argv)
        name = given[0] if given else "the image's own command"
        self._begun = door.Word(self._loop, name, self._command_begun)
        word = self._begun.open()
        stdin, output = self._outlet.inner
        try:
            command = visitor.give(
                (stdin, output, output), word, tty=self._spec.tty, env=self._spec.secret_env
            )
        finally:
            os.close(word)
        self._processes.begin(command)
        visitor.on_end(self._loop, self._command_ended)
        self._outlet.begin()

    def _open_streams(self, visitor: door.Visitor) -> None:
        reception = self._reception
        towards = self._loop, self._log, reception.written, self._perhaps_over
        wanted = self._spec.tty if self._spec.stdin is None else self._spec.stdin
        inlet: Inlet | None = None
        if self._spec.tty:
            self._outlet = TerminalOutlet(
                *towards,
                self._terminal(visitor.process, visitor.user),
                keyboard=wanted,
                pause=reception.pause_senders,
                on_change=reception.input_changed,
            )
            inlet = self._outlet if wanted else None
        elif wanted and self._spec.run == 0:
            # What was sent to the first run is not there to be sent to the next.
            inlet = PipeInlet(self._loop, reception.pause_senders, reception.input_changed)
            self._outlet = PipeOutlet(*towards, inlet.inner)
        else:
            self._outlet = PipeOutlet(*towards, None)
        reception.join(self._outlet, inlet)

    def _terminal(self, process: int, user: int) -> tuple[int, int]:
        terminal = entering.open_terminal(process)
        os.fchown(terminal[1], user, -1)
        return terminal

    def _command_begun(self) -> None:
        self._waiting = None
        self._started = time.time_ns()
        begun = {"at": self._started, "init": self.first_process}
        self._reception.tell(wire.json_frame(wire.STARTED, begun))
        if self._stopping:
            self._terminate()

    # The end.

    def _command_ended(self, status: int | None) -> None:
        """Its launcher, the first process, waits until this returns."""
        assert self._begun is not None
        assert self._processes is not None
        if status is None:
            return  # the first process is gone, which is told by itself
        self._begun.read_to_end()
        self._processes.end(status)

    def _perhaps_over(self) -> None:
        if self._is_over or not self._is_made:
            return
        if self._processes is None or not self._processes.is_gone:
            return
        if self._outlet is not None and not self._outlet.over:
            self._outlet.drain()  # calls back here when it is done, however full the disk is
            if not self._outlet.over:
                self._belongings.clear()
            return
        if not self._is_over:
            self._is_over = True
            self._unmake(lambda killed: self._conclude(self._ending(killed)))

    def _unmake(self, then: Callable[[bool], None]) -> None:
        """Remove the container; go on with whether the daemon ended it for its memory."""
        until = time.monotonic() + _UNMAKE_SECONDS
        identity = self._made.identity if self._made else None

        def unmade(result: bool | Exception) -> None:
            if isinstance(result, OSError) and time.monotonic() < until:
                self._loop.after(_TRY_AGAIN, attempt)
            else:
                then(result is True)

        def attempt() -> None:
            self._errands.run(lambda: making.unmake(self._daemon, self._order, identity), unmade)

        attempt()

    def _ending(self, ended_for_memory: bool) -> Ending:
        run = self._processes
        assert run is not None
        assert self._begun is not None
        self._begun.read_to_end()
        out_of_memory = run.out_of_memory or ended_for_memory
        if run.status is None and not run.killed and self._started is not None:
            if out_of_memory:
                return Ending(128 + signal.SIGKILL, OUT_OF_MEMORY, "the memory limit was reached")
            return Ending(None, LOST, _GONE)
        was_signal = run.status is not None and os.WIFSIGNALED(run.status)
        return conclude(
            status=signal.SIGKILL if run.status is None else exit_code(run.status) << 8,
            started=self._started is not None,
            stopping=self._stopping,
            killed=run.killed,
            out_of_memory=out_of_memory,
            shared_network=False,
            refusal=self._begun.refusal,
            last_output=b"",
            disk_excess=self._oversight.disk_excess,
            signal=os.WTERMSIG(run.status or 0) if was_signal else None,
        )

    def _conclude(self, ending: Ending) -> None:
        self._belongings.release()
        self._oversight.end()
        if self._begun is not None and self._begun.refusal is not None:
            self._say(self._begun.refusal[1])
        self._reception.end_executions()
        peak = self._processes.peak_memory if self._processes is not None else None
        now, kept = time.time_ns(), self._log.kept()
        self._record = ExitRecord.of(ending, now, self._started, kept, peak)
        self._write_record()

    def _say(self, text: str) -> None:
        """As shells do: why the command cannot begin is in its output too."""
        end = b"\r\n" if self._spec.tty else b"\n"
        with contextlib.suppress(OSError):
            self._log.write(text.encode("utf-8", "replace") + end)

    def _write_record(self) -> None:
        assert self._record is not None
        self._belongings.clear()
        try:
            layout.write_exit(f"/proc/self/fd/{self._place}", self._record)
        except FileNotFoundError:  # somebody deleted the folder: there is no place to write to
            message = "the run's folder was deleted while it ran"
            self._record = replace(self._record, exit_code=None, cause=LOST, message=message)
        except OSError:  # the disk is full: nobody is told until it is certain
            self._loop.after(layout.FULL_SECONDS, self._write_record)
            return
        self._reception.close(self._record)

    def _write_state(self) -> None:
        """What is needed to clean up after us if we vanish."""
        record = {"supervisor": identity(os.getpid()), "init": identity(self.first_process)}
        layout.add_state(f"/proc/self/fd/{self._place}/{layout.STATE}", record)

    # Signals.

    def stop(self, grace: float) -> None:
        """End the run: SIGTERM now, SIGKILL after ``grace`` seconds."""
        if self._record is not None:
            return
        with self._turn:
            is_first, self._stopping = not self._stopping, True
        if self._is_pulling:
            self._refuse(_STOPPED)
        elif is_first and self._started is not None:
            self._terminate()
        self._loop.after(max(0.0, grace), self._kill_late)

    def _kill_late(self) -> None:
        if self._record is None:
            self._kill()

    def _kill(self) -> None:
        if self._processes is not None:
            self._processes.kill()

    def _terminate(self) -> None:
        if self._processes is not None:
            self._processes.terminate()

    # What clients may learn of the run, and do with it.

    @property
    def first_process(self) -> int | None:
        """The run's first process while there is one: others can enter the run."""
        run = self._processes
        return run.first if run is not None and not run.is_gone else None

    @property
    def is_started(self) -> bool:
        """Whether the command has begun."""
        return self._started is not None

    def state(self) -> dict[str, Any]:
        """What the engine must know of the run."""
        return {
            "started": self._started,
            "init": self.first_process,
            "waiting": self._waiting if self._started is None else None,
            "gpus": list(self._spec.gpus),
        }

    def open_terminal(self, init: int) -> tuple[int, int]:
        """A terminal for ``exec``. Raises OSError."""
        return entering.open_terminal(init)

    def hand_over_socket(self, init: int, client: socket.socket) -> None:
        """Send a socket inside the run's network to ``client``. Raises OSError."""
        entering.socket_inside(init, client, plain=False)

    def spawn(
        self,
        init: int,
        command: tuple[Sequence[str], bool],
        streams: tuple[int, int, int],
        word: int,
    ) -> int:
        """Start a command inside, as ``execution`` needs it. Returns its pid, raises OSError."""
        assert self._made is not None
        assert self._door is not None
        env = self._spec.secret_env
        return executing.execute(
            self._loop, self._daemon, self._made, self._door, command, streams, env
        )
