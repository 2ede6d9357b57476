"""The process that forks supervisors: small, started with the server, gone with it.

Supervisors wait, forked, for a run. The zygote claims the run before it gives it to one, by
renaming a folder with a listening socket in it to the run's name. So a request that a dead server
left behind and the same request of the next server can never both run, and whoever finds a run's
folder can connect to it.

A supervisor whose run is over comes back, and is asked for the next berth before another is forked:
a fork, the copies of all pages that it changes, and its end are a quarter of a short run.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neuro.engines.sandbox import claims, init, inside, kernel, layout, stage, wire
from neuro.engines.sandbox.handover import hand_over
from neuro.engines.sandbox.identities import Block
from neuro.engines.sandbox.launch import Plan, plan_from
from neuro.engines.sandbox.waiting import supervise

_GUARDED = "--guarded"
_SPARE = 2  # supervisors that wait for a run
_LULL = 0.008  # seconds after a start until the next is made ready
_IDLE = 8  # supervisors whose run is over that are kept
_IDLE_SECONDS = 1.0  # for so long


def main() -> None:
    """``zygote FOLDER FD OPEN_FILES``: serve the engine at the other end of the socket ``FD``.

    ``OPEN_FILES`` is the soft limit of descriptors that runs begin with.
    """
    folder, fd, open_files = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if _GUARDED not in sys.argv:
        _guard()
    os.umask(0o022)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    # Nor is what a killed one leaves, which the kernel buries here: the machine's pid 1 may not.
    kernel.become_subreaper()
    kernel.set_name("neuro-zygote")
    # An earlier zygote may still be forking what its dead server asked for. POSIX locks are not
    # inherited by forks, so a supervisor does not hold this one.
    lock = os.open(f"{folder}/{layout.ZYGOTE_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    init.prepare()
    inside.covered_files()  # once, for all that are forked from here
    engine = socket.socket(fileno=fd)
    engine.set_inheritable(False)
    gc.collect()
    gc.disable()
    gc.freeze()  # a collection in a fork would copy every page that it shares
    try:
        engine.sendall(wire.frame(wire.READY))
    except BrokenPipeError:
        return  # the server ended while we started
    _serve(engine, lock, open_files)


def _guard() -> None:
    """Start again from an executable that nobody can write to through us.

    A job reaches the executable of whoever executes its command (a script that begins with
    ``#!/proc/self/exe``), outside its own file system. Opened for writing, it would be the host's
    file.
    """
    kernel.forget_keys()
    kernel.enter_guard([os.path.realpath(sys.executable)])
    arguments = [*sys.orig_argv, _GUARDED]
    os.set_inheritable(int(sys.argv[2]), True)
    os.execv(sys.executable, arguments)


def _serve(engine: socket.socket, lock: int, open_files: int) -> None:
    frames = wire.Frames()
    waiting: Waiting | None = None
    while True:
        ready = _ready(engine, waiting)
        if waiting is not None and engine.fileno() not in ready:
            if ready:
                waiting.take_back()
            else:
                waiting.let_go()
            continue
        data = _receive(engine)
        if not data:
            break
        for kind, payload in frames.feed(data):
            message = json.loads(payload)
            if kind == wire.CONFIGURE:
                if waiting is not None:
                    waiting.dismiss()
                waiting = Waiting(plan_from(message), (engine.fileno(), lock), open_files)
            elif kind == wire.START and waiting is not None:
                answer = waiting.start(message["request"])
                try:
                    engine.sendall(
                        wire.json_frame(wire.ANSWER, {"id": message["id"], "answer": answer})
                    )
                except OSError:
                    waiting.dismiss()
                    return
        if waiting is not None and waiting.lacks:
            _make_ready(waiting, engine)
    if waiting is not None:
        waiting.dismiss()


def _ready(engine: socket.socket, waiting: Waiting | None) -> list[int]:
    """Who has something to say: the engine, supervisors that come back; nobody after a while."""
    poll = select.poll()  # ``select`` knows no descriptors beyond 1024
    poll.register(engine, select.POLLIN)
    if waiting is not None:
        poll.register(waiting.returns, select.POLLIN)
    patience = _IDLE_SECONDS * 1000 if waiting is not None and waiting.has_idle else None
    return [fd for fd, _ in poll.poll(patience)]


def _make_ready(waiting: Waiting, engine: socket.socket) -> None:
    """Let the next supervisors wait, but where one does, not beside a run that has just begun.

    It needs the same locks of the kernel, and is what somebody waits for.
    """
    lull = 0 if waiting.is_empty else _LULL
    if not select.select([engine], [], [], lull)[0]:
        waiting.fill()


def _receive(engine: socket.socket) -> bytes:
    """What the server says next; nothing once it has gone."""
    try:
        return engine.recv(1 << 16)
    except ConnectionResetError:  # It was killed before it had read all answers.
        return b""


@dataclass(frozen=True)
class _One:
    """A supervisor: its pid, the name of the berth in which it waits for a run, the way to it."""

    pid: int
    berth: str
    channel: socket.socket


class Waiting:
    """Supervisors that wait in their berths, once a first run was asked for.

    ``returns`` is where those come back whose run is over.
    """

    def __init__(self, plan: Plan, mine: tuple[int, int], open_files: int) -> None:
        """``mine`` are descriptors that supervisors must not have."""
        self._plan = plan
        self._blocks = stage.blocks(plan)
        # Each block of users that was ever needed at once is three descriptors of ours. What runs
        # begin with is not for us to raise: a program that calls select() breaks beyond 1024.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self._open_files = open_files, most
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._mine = mine
        self._ones: list[_One] = []
        self._idle: list[_One] = []
        self.returns, self._way_back = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.returns.setblocking(False)
        self._is_used = False

    def start(self, request: dict[str, Any]) -> str:
        """Begin a run: "started", "exists", or why not."""
        self._is_used = True
        job_id, run = str(request["job_id"]), int(request["run"])
        try:
            one = self._take()
        except OSError as error:
            return f"no process can be started: {error}"
        try:
            listener = claims.claim(self._plan.folder, job_id, run, one.berth)
        except (OSError, ValueError) as error:
            self._ones.append(one)
            return f"the run's folder cannot be made: {error}"
        if listener is None:
            self._ones.append(one)
            return "exists"
        with one.channel, listener:
            try:
                hand_over(one.channel, json.dumps(request).encode(), listener)
            except OSError as error:  # nothing of it has begun
                with contextlib.suppress(OSError):  # its disk is gone: then the run is lost
                    claims.withdraw(self._plan.folder, job_id, run)
                return f"the run cannot be handed to a supervisor: {error}"
        return "started"

    def _take(self) -> _One:
        while self._ones:
            one = self._ones.pop(0)
            try:
                one.channel.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return one
            except ConnectionResetError:  # before it had read which berth to make
                pass
            one.channel.close()  # somebody killed it
        return self._another()

    @property
    def lacks(self) -> bool:
        """Whether there are fewer than should be, since a first run was asked for."""
        return self._is_used and len(self._ones) < _SPARE

    @property
    def is_empty(self) -> bool:
        return not self._ones

    @property
    def has_idle(self) -> bool:
        """Whether there are some whose run is over and that were not asked for a berth yet."""
        return bool(self._idle)

    def take_back(self) -> None:
        """Keep those that have come back."""
        for one in self._returned():
            if len(self._idle) < _IDLE:
                self._idle.append(one)
            else:
                one.channel.close()

    def _returned(self) -> Iterator[_One]:
        while True:
            try:
                said, fds = wire.receive_descriptors(self.returns, 64, 1)
            except BlockingIOError:
                return
            for fd in fds:  # none where we have no descriptor left: then it ends
                yield _One(int(said), "", socket.socket(fileno=fd))

    def let_go(self) -> None:
        """End those whose run is over: nobody asks for runs now."""
        for one in self._idle:
            one.channel.close()
        self._idle.clear()

    def fill(self) -> None:
        """Let supervisors wait for the next runs."""
        try:
            while len(self._ones) < _SPARE:
                self._ones.append(self._another())
        except OSError:
            pass  # the next start tries again, and says so

    def dismiss(self) -> None:
        """End those that wait, and return when they have tidied up."""
        self.take_back()
        self.returns.close()
        self._way_back.close()
        every = [*self._ones, *self._idle]
        for one in every:
            one.channel.close()
        for one in every:
            try:
                os.waitpid(one.pid, 0)
            except ChildProcessError:
                pass  # where SIGCHLD is ignored, this is how waiting ends
        self._ones.clear()
        self._idle.clear()

    def _another(self) -> _One:
        """Let one more make a berth, and wait in it. Raises OSError."""
        berth = f"{os.getpid()}-{time.monotonic_ns():x}"
        self.take_back()
        while self._idle:
            one = self._idle.pop()
            try:
                one.channel.send(berth.encode())
            except OSError:  # somebody killed it
                one.channel.close()
            else:
                return _One(one.pid, berth, one.channel)
        return self._fork(berth)

    def _fork(self, berth: str) -> _One:
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        block: Block | None = None
        try:
            block = self._blocks.claim()
            pid = os.fork()
        except OSError:
            if block is not None:
                block.release()
            channel.close()
            theirs.close()
            raise
        if pid == 0:
            try:
                others = (one.channel for one in (*self._ones, *self._idle))
                for end in (self.returns, channel, *others):
                    end.close()
                for fd in self._mine:
                    os.close(fd)
                self._blocks.close_others(block)
                resource.setrlimit(resource.RLIMIT_NOFILE, self._open_files)
                os.setsid()
                kernel.set_name("neuro-berth")
                supervise(self._plan, berth, block, theirs, self._way_back)
            finally:  # whatever it is, it must not return into the zygote's loop
                os._exit(0)
        theirs.close()
        block.release()
        return _One(pid, berth, channel)


if __name__ == "__main__":
    main()
