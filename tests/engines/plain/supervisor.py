"""The process that looks after one run: ``python supervisor.py FOLDER RUN_FOLDER``.

It depends on nobody. What it knows is in the run's folder before anyone is told: ``begun`` (who
creates it runs the job, nobody else does), ``started``, ``exit``; ``lock`` is held as long as it
lives, and at ``socket`` it answers. The standard library alone: many begin at once.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
from typing import Any

TAG = "NEURO_PLAIN_RUN"  # in the environment of every process of a run
FRAME = struct.Struct("<BI")  # of sessions: what it is, how many bytes follow
INPUT, OUTPUT, ERRORS, EXIT, RESIZE, INPUT_END, INPUT_STATE = range(7)
RECORD = struct.Struct("<QQ")  # of ``times``: an offset in the output, and when it came (ns)
CHUNK = 1 << 16


def write_record(folder: str, name: str, content: dict[str, Any]) -> None:
    """Whole, or not at all."""
    draft = f"{folder}/{name}.{os.getpid()}.new"
    with open(draft, "w") as file:
        json.dump(content, file)
    os.rename(draft, f"{folder}/{name}")


def processes_of(folder: str) -> list[int]:
    """All processes that carry the tag of a run, or of any run below an engine's folder."""
    tag = f"\0{TAG}={folder}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                words = b"\0" + file.read()
                if tag + b"\0" in words or tag + b"/" in words:
                    found.append(int(name))
    return found


def kill_all(folder: str) -> None:
    """End every process of a run, or of all runs below an engine's folder.

    Each look finds those that were made meanwhile.
    """
    while found := [pid for pid in processes_of(folder) if pid != os.getpid()]:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def image_folder(job: str, image: str) -> str:
    """Where the files of an image that was made of a run are. ``job`` is a folder of the engine."""
    return f"{job}/../../images/{image.replace('/', '%')}"


def place_of(folder: str) -> str:
    """A socket's path has room for 107 bytes."""
    return f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}/socket"


class Refused(Exception):
    """The command cannot be executed."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def spawn(
    argv: list[str], env: dict[str, str], folder: str, streams: tuple[int, int, int], *, tty: bool
) -> int:
    """A process of its own session. Raises Refused where it is not executed."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            if tty:
                fcntl.ioctl(1, termios.TIOCSCTTY, 0)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.chdir(folder)
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(127)
    os.close(tell)
    with open(told, "rb") as word:
        number = word.read()
    if not number:
        return pid
    os.waitpid(pid, 0)
    missing = int(number) in (2, 20)
    raise Refused(127 if missing else 126, f"{argv[0]}: {os.strerror(int(number))}")


def code_of(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def resize(terminal: int, size: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        packed = struct.pack("HHHH", size["height"], size["width"], 0, 0)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)


class Input:
    """The way into a process: one writer after the other, as fast as it reads."""

    def __init__(self, pipe: int, *, is_terminal: bool) -> None:
        self._pipe = pipe
        self._is_terminal = is_terminal
        self._turn = threading.Lock()
        self._listeners: list[Any] = []
        self.taken = 0
        self.closed = False

    def listen(self, listener: Any) -> None:
        self._listeners.append(listener)

    def watch(self) -> None:
        """Notice when the process closes its end."""
        poll = select.poll()
        poll.register(self._pipe, 0)
        while not self.closed:
            if poll.poll(200):
                self.end()

    def write(self, data: bytes) -> None:
        with self._turn:
            while data and not self.closed:
                try:
                    written = os.write(self._pipe, data)
                except OSError:
                    self.end()
                    return
                data = data[written:]
                self.taken += written
                self.tell()

    def finish(self) -> None:
        """No more comes."""
        with self._turn:
            if self._is_terminal:
                with contextlib.suppress(OSError):
                    os.write(self._pipe, b"\x04")
            elif not self.closed:
                self.closed = True
                os.close(self._pipe)

    def end(self) -> None:
        self.closed = True
        self.tell()

    def tell(self) -> None:
        for listener in self._listeners:
            listener({"taken": self.taken, "closed": self.closed})


class Peer:
    """Who is connected: a first line says what for, then lines or frames."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")
        self._turn = threading.Lock()

    def line(self) -> dict[str, Any] | None:
        line = self.file.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def say(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message).encode() + b"\n")

    def frame(self, kind: int, data: bytes) -> None:
        self._send(FRAME.pack(kind, len(data)) + data)

    def frames(self) -> Any:
        while len(head := self.file.read(FRAME.size)) == FRAME.size:
            kind, size = FRAME.unpack(head)
            yield kind, self.file.read(size)

    def _send(self, data: bytes) -> None:
        with self._turn, contextlib.suppress(OSError):
            self.connection.sendall(data)


class Supervisor:
    """One run."""

    def __init__(self, job: str, folder: str, spec: dict[str, Any]) -> None:
        self._job = job
        self._folder = folder
        self._spec = spec
        self._changed = threading.Condition()
        self._sessions: set[threading.Thread] = set()
        self._output = open(f"{job}/output", "ab")  # noqa: SIM115
        self._times = open(f"{job}/times", "ab")  # noqa: SIM115
        self._end = os.fstat(self._output.fileno()).st_size
        self._pid = 0
        self._input: Input | None = None
        self._terminal = -1
        self._inner: list[int] = []  # of the terminal: it lives as long as the run
        self._started: int | None = None
        self._stopping = False
        self._exit: dict[str, Any] | None = None
        self._env = {"PATH": os.environ["PATH"], **spec["env"], TAG: folder}
        self._env["NEURO_PLAIN_ROOT"] = f"{folder}/root"
        if spec["tty"]:
            self._env.setdefault("TERM", "xterm-256color")

    def run(self) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(place_of(self._folder))
        listener.listen(128)
        with contextlib.suppress(BrokenPipeError):  # whoever started it may have been killed
            os.write(1, b"ready")
        nothing = os.open("/dev/null", os.O_RDWR)
        os.dup2(nothing, 1)
        threading.Thread(target=self._receive, args=(listener,), daemon=True).start()
        code, cause, message = self._live()
        while self._sessions:
            kill_all(self._folder)
            for session in list(self._sessions):
                session.join(0.5)
        self._conclude(code, cause, message)

    # The life of the command.

    def _live(self) -> tuple[int | None, str, str | None]:
        try:
            root = self._make_root()
            pump = self._begin(root)
        except Refused as refused:
            self._append(f"{refused}\n".encode())
            return refused.code, "cannot_start", str(refused)
        _, status = os.waitpid(self._pid, 0)
        with self._changed:
            self._pid = 0
        kill_all(self._folder)
        for inner in self._inner:
            os.close(inner)
        pump.join()
        code = code_of(status)
        return code, "error" if code else "completed", None

    def _make_root(self) -> str:
        """A folder with the run's files, and links to its volumes: its ``$NEURO_PLAIN_ROOT``."""
        root = f"{self._folder}/root"
        image = image_folder(self._job, self._spec["image"])
        if os.path.isdir(image):
            import shutil  # which others need not wait for

            shutil.copytree(image, root, symlinks=True)
        else:
            os.mkdir(root)
        for source, target in self._spec["mounts"]:
            place = f"{root}/{target.strip('/')}"
            if not os.path.exists(source):
                raise Refused(126, f"{target}: {source} does not exist")
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(source, place)
        for given in self._spec["files"]:
            place = f"{root}/{given['target'].strip('/')}"
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "wb") as file:
                os.fchmod(file.fileno(), given["mode"])
                file.write(base64.b64decode(given["content"]))
        return root

    def _begin(self, root: str) -> threading.Thread:
        spec = self._spec
        wants_input = spec["tty"] if spec["stdin"] is None else spec["stdin"]
        where = spec["working_dir"] or root
        folder = where if os.path.isdir(where) else root
        argv = [*(spec["entrypoint"] or ()), *spec["argv"]] or ["bash"]
        if spec["tty"]:
            outer, inner = os.openpty()
            self._terminal = outer
            self._inner.append(os.dup(inner))
            inlet = inner if wants_input else os.open("/dev/null", os.O_RDONLY)
            streams = (inlet, inner, inner)
            source = outer
            self._input = Input(outer, is_terminal=True) if wants_input else None
        else:
            source, inner = os.pipe()
            inlet = os.open("/dev/null", os.O_RDONLY)
            if wants_input and spec["run"] == 0:
                inlet, outlet = os.pipe()
                self._input = Input(outlet, is_terminal=False)
            streams = (inlet, inner, inner)
        pump = threading.Thread(target=self._pump, args=(source,))
        try:
            self._pid = spawn(argv, self._env, folder, streams, tty=spec["tty"])
        finally:
            for stream in {*streams}:
                os.close(stream)
        with self._changed:
            self._started = time.time_ns()
            begun = {"at": self._started, "pid": self._pid, "supervisor": os.getpid()}
            write_record(self._folder, "started", begun)
            self._changed.notify_all()
            if self._stopping:
                self._signal(signal.SIGTERM)
        pump.start()
        return pump

    def _pump(self, source: int) -> None:
        while True:
            try:
                data = os.read(source, CHUNK)
            except OSError:  # a terminal that nobody has open any more
                data = b""
            if not data:
                break
            self._append(data)
        os.close(source)

    def _append(self, data: bytes) -> None:
        self._times.write(RECORD.pack(self._end, time.time_ns()))
        self._times.flush()
        self._output.write(data)
        self._output.flush()
        with self._changed:
            self._end += len(data)
            self._changed.notify_all()

    def _signal(self, number: int) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def _conclude(self, code: int | None, cause: str, message: str | None) -> None:
        ended = {
            "at": time.time_ns(),
            "exit_code": code,
            "cause": cause,
            "message": message,
            "output_bytes": self._end,
        }
        write_record(self._folder, "exit", ended)
        with self._changed:
            self._exit = ended
            self._changed.notify_all()
        deadline = time.monotonic() + 0.3
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.name != "input":
                # They tell those who are connected; who is not told reads the record.
                thread.join(max(0.0, deadline - time.monotonic()))
        os._exit(0)

    # Who connects.

    def _receive(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = Peer(connection)
        with contextlib.suppress(OSError, ValueError), connection:
            asked = peer.line() or {"op": "nothing"}
            getattr(self, f"_{asked['op']}", lambda *_: None)(peer, asked)

    def _watch(self, peer: Peer, _: dict[str, Any]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._started is not None or self._exit is not None)
        if self._started is not None:
            peer.say({"started": self._started})
        with self._changed:
            self._changed.wait_for(lambda: self._exit is not None)
        peer.say({"exit": self._exit})

    def _follow(self, peer: Peer, asked: dict[str, Any] | None) -> None:
        while asked is not None:
            after = asked["after"]
            with self._changed:
                self._changed.wait_for(lambda a=after: self._end > a or self._exit is not None)  # type: ignore[misc]
            peer.say({"end": self._end, "over": self._exit is not None})
            asked = peer.line()

    def _stop(self, peer: Peer, asked: dict[str, Any]) -> None:
        with self._changed:
            if not self._stopping:
                self._stopping = True
                self._signal(signal.SIGTERM)
        timer = threading.Timer(max(0.0, asked["grace"]), self._kill)
        timer.name = "input"
        timer.daemon = True
        timer.start()
        peer.say({"stopping": True})

    def _kill(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._pid or self._exit is not None)
            self._signal(signal.SIGKILL)

    def _attach(self, peer: Peer, asked: dict[str, Any]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._started is not None or self._exit is not None)
        source = self._input if asked["stdin"] else None
        taken = source.taken if source is not None else 0
        peer.say({"end": self._end, "taken": taken})
        if source is not None:
            source.listen(lambda state: peer.frame(INPUT_STATE, json.dumps(state).encode()))
        self._hear(peer, source, self._terminal)

    def _hear(self, peer: Peer, source: Input | None, terminal: int) -> None:
        for kind, data in peer.frames():
            if kind == INPUT and source is not None:
                source.write(data)
            elif kind == INPUT_END and source is not None:
                source.finish()
            elif kind == RESIZE and terminal >= 0:
                resize(terminal, json.loads(data))

    def _exec(self, peer: Peer, asked: dict[str, Any]) -> None:
        self._sessions.add(threading.current_thread())
        try:
            if not self._pid:
                return
            self._execute(peer, asked["argv"], tty=asked["tty"])
        finally:
            self._sessions.discard(threading.current_thread())

    def _execute(self, peer: Peer, argv: list[str], *, tty: bool) -> None:
        terminal = -1
        if tty:
            terminal, inner = os.openpty()
            ours, theirs, outlet = {terminal: OUTPUT}, (inner, inner, inner), terminal
        else:
            (inlet, outlet), (out, to_out), (err, to_err) = os.pipe(), os.pipe(), os.pipe()
            ours, theirs = {out: OUTPUT, err: ERRORS}, (inlet, to_out, to_err)
        where = self._spec["working_dir"] or f"{self._folder}/root"
        folder = where if os.path.isdir(where) else "/"
        try:
            pid = spawn(argv, self._env, folder, theirs, tty=tty)
        except Refused as refused:
            peer.frame(ERRORS, f"{refused}\n".encode())
            peer.frame(EXIT, str(refused.code).encode())
            return
        finally:
            for stream in {*theirs}:
                os.close(stream)
        source = Input(outlet, is_terminal=tty)
        source.listen(lambda state: peer.frame(INPUT_STATE, json.dumps(state).encode()))
        if not tty:
            threading.Thread(target=source.watch, daemon=True, name="input").start()
        process = os.pidfd_open(pid)
        threading.Thread(
            target=self._lead, args=(peer, source, terminal, process), daemon=True, name="input"
        ).start()
        self._tell(peer, ours, process)
        _, status = os.waitpid(pid, 0)
        source.closed = True
        peer.frame(EXIT, str(code_of(status)).encode())
        peer.connection.shutdown(socket.SHUT_WR)

    def _lead(self, peer: Peer, source: Input, terminal: int, process: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._hear(peer, source, terminal)
        with contextlib.suppress(OSError):  # whoever asked for it has gone
            signal.pidfd_send_signal(process, signal.SIGKILL)

    def _tell(self, peer: Peer, ours: dict[int, int], process: int) -> None:
        """Pass on what the process says until it ends; what it left behind is not waited for."""
        over = False
        while ours or not over:
            wait = 0 if over else None
            ready, _, _ = select.select([*ours, *(() if over else (process,))], [], [], wait)
            if over and not ready:
                return
            for stream in ready:
                if stream == process:
                    over = True
                    continue
                try:
                    data = os.read(stream, CHUNK)
                except OSError:
                    data = b""
                if data:
                    peer.frame(ours[stream], data)
                else:
                    del ours[stream]


def claim(folder: str) -> bool:
    """Whether this process is the one that runs the job; the lock tells others that it lives."""
    lock = os.open(f"{folder}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    while not os.path.exists(f"{folder}/begun"):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another that claims it, or one that looks whether it is held
            time.sleep(0.001)
            continue
        try:
            os.close(os.open(f"{folder}/begun", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True
    return False


def main() -> None:
    job, folder = sys.argv[1:3]
    if os.fork():
        os._exit(0)  # the server waits for this one alone
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # what is ignored, a command would inherit
    if not claim(folder):
        os.write(1, b"begun by another")
        return
    with open(f"{folder}/spec") as file:
        spec = json.load(file)
    Supervisor(job, folder, spec).run()


if __name__ == "__main__":
    main()
