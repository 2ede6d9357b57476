"""The process that looks after one run, from its launch to its exit record.

It is a fork of the zygote and depends on nobody; its clients come and go (``reception``). What it
knows at the end is written to the run's folder before anyone is told.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from neuro.engines.images import locks
from neuro.engines.images.locks import Lock
from neuro.engines.sandbox import (
    cgroups,
    entering,
    execution,
    launch,
    launcher,
    layout,
    wire,
)
from neuro.engines.sandbox.allowance import Allowance
from neuro.engines.sandbox.berth import Berth
from neuro.engines.sandbox.ending import LOST, Ending, ExitRecord, conclude
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.neighbourhood import Neighbourhood
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog
from neuro.engines.sandbox.oversight import Oversight
from neuro.engines.sandbox.pasta import Pasta
from neuro.engines.sandbox.processes import identity
from neuro.engines.sandbox.reception import Reception
from neuro.engines.sandbox.relay import Relay
from neuro.engines.sandbox.run_folder import RunFolder
from neuro.engines.sandbox.streams import open_streams

T = TypeVar("T")

_FOLDER_SECONDS = 5.0  # between two looks at whether the run's folder is there


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
        self._place = RunFolder(folder)
        self._loop = Loop(Allowance.of_run(request.cpu))
        self._loop.bury_children()
        self._log = OutputLog(layout.output_folder(plan.folder, request.job_id), plan.retention)
        self._reception = Reception(self._loop, listener, self._log, self)
        self._oversight = Oversight(self._loop, self._kill)
        self._began_at = self._log.end
        self._group = berth.group
        self._groups = cgroups.of_control(plan.groups) if request.control else plan.groups
        self._prepared: launch.Prepared | None = None
        self._neighbourhood = Neighbourhood(plan, request)
        self._word = launcher.Word(self._loop, self._command_begun)
        self._init: int | None = None
        self._command_status: int | None = None
        self._init_status: int | None = None
        self._started: int | None = None
        self._stopping = False
        self._killed = False
        self._record: ExitRecord | None = None
        self._outlet: PipeOutlet | TerminalOutlet | None = None
        self._pasta: Pasta | None = None
        self._relay: Relay | None = None
        self._image: Lock | None = None  # as long as we have it, its layers stay

    def run(self) -> bool:
        """Launch, serve, conclude, clean up; whether the run's end is on record."""
        self._reception.open()
        try:
            self._settle()
            self._launch()
        except ValueError as error:  # what was asked for is impossible
            self._refuse(Ending.cannot_start(str(error)))
        except OSError as error:  # it is this machine that cannot do it now
            self._refuse(Ending.not_ready(launcher.reason_of(error)))
        self._loop.after(_FOLDER_SECONDS, self._look_at_folder)
        self._loop.run()
        self._clear()
        self._loop.close()
        self._log.close()
        self._place.close()
        if self._image is not None:
            self._image.close()
        return self._record is not None and self._record.cause != LOST

    def _refuse(self, ending: Ending) -> None:
        self._word.forget()
        self._init = None  # its pid may be another process's from here on
        self._berth.discard()
        self._conclude(ending)

    def _look_at_folder(self) -> None:
        """End a run whose folder somebody deleted: it could neither say its end nor be found."""
        if self._record is None:
            if not self._place.is_there:
                self._kill()
            self._loop.after(_FOLDER_SECONDS, self._look_at_folder)

    def _clear(self) -> None:
        """Delete the private files. What cannot go is left to the next server's start."""
        self._berth.release_mounts()
        self._place.clear(self._plan)

    # Launch.

    def _settle(self) -> None:
        """Take the berth, which is the same for every run. Raises OSError."""
        self._write_state()
        self._berth.occupy(self._folder)
        self._group.check()
        if self._groups != self._plan.groups:
            self._group.move(self._groups, self._berth.command)

    def _launch(self) -> None:
        berth = self._berth
        self._limit()
        if self._plan.groups.version == 0:
            cores = launch.cores_for(self._request.cpu)
            for pid in (berth.init, berth.command):
                os.sched_setaffinity(pid, cores)
        hosts = self._neighbourhood.join(self._berth.address)
        if hosts is not None:
            self._request = replace(self._request, mounts=(*self._request.mounts, hosts))
        if self._request.layers is not None:
            self._berth.hold_userland()
        if self._request.lock:
            self._image = locks.shared(self._request.lock)
        layers = self._place.layers
        if self._request.daemon:
            place = launch.relay_place(layers)
            self._relay = Relay(self._loop, place, self._request.daemon, self._block)
        self._prepared = launch.prepare(self._plan, self._request, self._block, layers, berth.init)
        self._open_streams()
        self._init = berth.init
        self._loop.on_end(berth.init, self._init_buried)
        self._loop.on_end(berth.command, self._command_buried)
        # Nothing of the run outlives its command, not even who traces it.
        self._loop.on_exit(berth.command, berth.release_init)
        if self._plan.network.kind == launch.PASTA:
            self._pasta = Pasta(
                self._loop, self._plan.network, berth.init, self._folder, self._pasta_ready
            )
        self._write_state()
        if self._pasta is None:
            self._oversight.prepare(self._request, self._begin_late)

    def _limit(self) -> None:
        limits = cgroups.Limits(self._request.cpu, self._request.memory, self._plan.processes)
        try:
            self._group.limit(limits)
        except OSError as error:
            if error.errno == errno.EBUSY:  # cgroup v1: what is in the group takes more already
                raise ValueError("its memory limit is too small for a process to begin") from None
            raise

    def _open_streams(self) -> None:
        self._outlet = open_streams(
            self._request,
            self._berth.init,
            self._loop,
            self._log,
            self._reception,
            self._perhaps_over,
        )
        self._block.give_pipes(self._outlet.inner)

    def _begin(self) -> None:
        """Let the second process become the command.

        Raises OSError, and then it does not: nothing may fail behind the berth's ``begin``.
        """
        assert self._prepared is not None
        assert self._outlet is not None
        layers = self._place.layers
        self._oversight.begin(self._plan, self._request, self._berth.init, layers)
        word = self._word.open()
        try:
            self._berth.begin(self._prepared, self._folder, (*self._outlet.inner, word))
        finally:
            os.close(word)
        self._prepared = None
        self._outlet.begin()

    def _write_state(self) -> None:
        """What is needed to clean up after us if we vanish."""
        record = {
            "supervisor": identity(os.getpid()),
            "init": identity(self._init),
            "pasta": identity(self._pasta.pid if self._pasta else None),
            "groups": vars(self._groups),
            "berth": self._berth.name,
            "neighbour": self._neighbourhood.place,
        }
        self._place.add_state(record)

    def _pasta_ready(self, worked: bool) -> None:
        if self._record is not None or self._prepared is None:
            return  # it was ended because the run cannot begin
        if worked:
            self._oversight.prepare(self._request, self._begin_late)
        else:
            self._word.refuse(launcher.NOT_READY, "the network of the job cannot be made")
            self._abandon()

    def _begin_late(self) -> None:
        try:
            self._begin()
            return
        except OSError as error:
            self._word.refuse(launcher.NOT_READY, launcher.reason_of(error))
        except ValueError as error:
            self._word.refuse(launcher.NOT_EXECUTABLE, str(error))
        self._abandon()

    def _abandon(self) -> None:
        """Nothing was begun: what waits for it can go."""
        self._let_go()
        self._kill()

    def _let_go(self) -> None:
        assert self._prepared is not None
        assert self._outlet is not None
        for tree in self._prepared.trees:
            os.close(tree)
        self._prepared = None
        self._outlet.begin()

    def _command_begun(self) -> None:
        if self._init_status not in (None, 0):  # killed before it began: nobody could say so
            return
        self._started = time.time_ns()
        begun = {"at": self._started, "init": self._init}
        self._reception.tell(wire.json_frame(wire.STARTED, begun))
        if self._stopping:
            self._terminate()

    # The end.

    def _command_buried(self, status: int) -> None:
        self._command_status = status
        self._perhaps_over()

    def _init_buried(self, status: int) -> None:
        """Every process of the pid namespace is gone: that is what its init waits for."""
        self._init_status = status
        self._word.read_to_end()
        self._perhaps_over()

    def _perhaps_over(self) -> None:
        if self._record is not None or self._init_status is None or self._command_status is None:
            return
        assert self._outlet is not None
        if self._prepared is not None:  # it was killed before it began, and now never will
            self._oversight.end()
            self._let_go()
        if not self._outlet.over:
            self._outlet.drain()  # calls back here when it is done, however full the disk is
            if not self._outlet.over:
                self._clear()  # no process is left, and its files may be what fills the disk
            return
        exceeded = self._oversight.memory_exceeded or bool(_asked(self._group.out_of_memory))
        self._conclude(
            conclude(
                # Our first process ends by itself; what ends it besides ends the run.
                status=self._init_status or execution.exit_code(self._command_status) << 8,
                started=self._started is not None,
                stopping=self._stopping,
                killed=self._killed,
                out_of_memory=exceeded,
                shared_network=self._plan.network.kind == launch.SHARED,
                refusal=self._word.refusal,
                last_output=self._log.read_since(max(self._began_at, self._log.end - 4096), 4096),
                disk_excess=self._oversight.disk_excess,
                signal=_signal_of(self._command_status),
            )
        )

    def _conclude(self, ending: Ending) -> None:
        self._oversight.end()
        if self._pasta is not None:
            self._pasta.end()
        if self._relay is not None:
            self._relay.close()
            self._relay = None
        peak = _asked(self._group.peak_memory)
        self._group.kill()
        self._group.remove()
        self._neighbourhood.leave()
        self._reception.end_executions()
        kept = self._log.kept()
        self._record = ExitRecord.of(ending, time.time_ns(), self._started, kept, peak)
        self._write_record()

    def _write_record(self) -> None:
        assert self._record is not None
        try:
            self._place.write_exit(self._record)
        except FileNotFoundError:  # somebody deleted the folder: there is no place to write to
            message = "the run's folder was deleted while it ran"
            self._record = replace(self._record, exit_code=None, cause=LOST, message=message)
        except OSError:
            # The disk is full, perhaps of this run's own files. Nobody is told until it is certain.
            self._clear()
            self._loop.after(layout.FULL_SECONDS, self._write_record)
            return
        self._reception.close(self._record)

    # Signals.

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

    def stop(self, grace: float) -> None:
        """End the run: SIGTERM now, SIGKILL after ``grace`` seconds."""
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
        """SIGTERM, or what its image says, to the job's main process, unless it has just ended."""
        if self._command_status is None:
            os.kill(self._berth.command, self._request.stop_signal)

    # What clients may learn of the run, and do with it.

    @property
    def first_process(self) -> int | None:
        """The run's first process while there is one: others can enter the run."""
        return self._init if self._init_status is None else None

    @property
    def is_started(self) -> bool:
        """Whether the command has begun."""
        return self._started is not None

    def state(self) -> dict[str, Any]:
        """What the engine must know of the run."""
        return {
            "started": self._started,
            "init": self._init,
            "memory": self._request.memory,
            "groups": vars(self._groups),
            "berth": self._berth.name,
            "network": self._plan.network.kind,
            "gpus": list(self._request.gpus),
            "where": self._request.where,
            "files": launch.own_files(self._plan, self._request),
        }

    def spawn(
        self,
        init: int,
        command: tuple[Sequence[str], bool],
        streams: tuple[int, int, int],
        word: int,
    ) -> int:
        """Start a command inside, as ``execution`` needs it. Returns its pid, raises OSError."""
        argv, tty = command
        if self._request.nesting:
            # It would be beside the credentials of the build and its cache, as the same user.
            raise OSError(errno.EPERM, "nothing but its build runs in a job that builds an image")
        return entering.execute(
            self._plan, self._request, self._block, self._group, init, argv, streams, word, tty=tty
        )

    def open_terminal(self, init: int) -> tuple[int, int]:
        """A terminal (master, slave) for ``exec``. Raises OSError."""
        return entering.open_terminal(init)

    def hand_over_socket(self, init: int, client: socket.socket) -> None:
        """Send ``client`` a TCP socket that lives in the run's network. Raises OSError."""
        entering.socket_inside(init, client, plain=self._plan.plain)


def _signal_of(status: int) -> int | None:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def _asked(question: Callable[[], T]) -> T | None:
    """What the group answers; None where it cannot."""
    try:
        return question()
    except OSError:
        return None
