"""The process that forks supervisors: small, started with the server, gone with it.

It claims a run before it forks, by renaming a folder with a listening socket in it to the run's
name. So a request that a dead server left behind and the same request of the next server can never
both run, and whoever finds a run's folder can connect to it.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import json
import os
import signal
import socket
import sys
import traceback

from neuro.engines.sandbox import kernel, layout, wire
from neuro.engines.sandbox.launch import Plan, Request, plan_from, request_from
from neuro.engines.sandbox.supervisor import supervise

_GUARDED = "--guarded"


def main() -> None:
    """``zygote FOLDER FD BWRAP``: serve the engine at the other end of the socket ``FD``."""
    folder, fd, bwrap = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if os.geteuid() == 0 and _GUARDED not in sys.argv:
        _guard(bwrap)
    os.umask(0o022)
    os.chdir("/")
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors are not waited for
    kernel.set_name("neuro-zygote")
    # An earlier zygote may still be forking what its dead server asked for. POSIX locks are not
    # inherited by forks, so a supervisor does not hold this one.
    lock = os.open(f"{folder}/zygote.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    engine = socket.socket(fileno=fd)
    engine.set_inheritable(False)
    gc.collect()
    gc.disable()
    gc.freeze()  # a collection in a fork would copy every page that it shares
    engine.sendall(wire.frame(wire.READY))
    _serve(engine, lock)


def _guard(bwrap: str) -> None:
    """Start again from executables that nobody can write to through us.

    A job with uid 0 reaches the executables of its init (``/proc/1/exe``), and that of whoever
    executes its command (a script that begins with ``#!/proc/self/exe``), outside its own file
    system. Opened for writing, they would be the host's files.
    """
    kernel.protect_files([os.path.realpath(sys.executable), os.path.realpath(bwrap)])
    arguments = [*sys.orig_argv, _GUARDED]
    os.set_inheritable(int(sys.argv[2]), True)
    os.execv(sys.executable, arguments)


def _serve(engine: socket.socket, lock: int) -> None:
    frames = wire.Frames()
    plan: Plan | None = None
    while data := engine.recv(1 << 16):
        for kind, payload in frames.feed(data):
            message = json.loads(payload)
            if kind == wire.CONFIGURE:
                plan = plan_from(message)
            elif kind == wire.START and plan is not None:
                answer = _start(plan, request_from(message["request"]), (engine, lock))
                try:
                    engine.sendall(
                        wire.json_frame(wire.ANSWER, {"id": message["id"], "answer": answer})
                    )
                except OSError:
                    return


def _start(plan: Plan, request: Request, mine: tuple[socket.socket, int]) -> str:
    try:
        listener = _claim(plan.folder, request)
    except OSError as error:
        return f"the run's folder cannot be made: {error}"
    if listener is None:
        return "exists"
    try:
        pid = os.fork()
    except OSError as error:
        listener.close()
        layout.remove_tree(layout.run_folder(plan.folder, request.job_id, request.run))
        return f"no process can be started: {error}"
    if pid == 0:
        folder = layout.run_folder(plan.folder, request.job_id, request.run)
        try:
            mine[0].close()
            os.close(mine[1])
            os.setsid()
            kernel.set_name("neuro-job")
            supervise(plan, request, folder, listener)
        except BaseException:  # whatever it is, it must not return into the zygote's loop
            with open(f"{folder}/fault", "w", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        finally:
            os._exit(0)
    listener.close()
    return "started"


def _claim(folder: str, request: Request) -> socket.socket | None:
    """A listening socket in the run's folder, or None where the run was claimed before."""
    final = layout.run_folder(folder, request.job_id, request.run)
    if os.path.exists(final):
        return None
    claim = f"{os.path.dirname(final)}/.{request.run}.{os.getpid()}"
    os.makedirs(claim, exist_ok=True)
    listener = layout.listen(claim)
    try:
        os.rename(claim, final)
    except OSError as error:
        listener.close()
        layout.remove_tree(claim)
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return None
        raise
    return listener


if __name__ == "__main__":
    main()
