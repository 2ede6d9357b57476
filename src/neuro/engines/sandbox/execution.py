"""One ``exec``: a process inside the sandbox and the connection that it belongs to."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import termios
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from neuro.engines.sandbox import wire
from neuro.engines.sandbox.client import Client, Feed
from neuro.engines.sandbox.loop import READ, WRITE, Loop

_PORTION = 1 << 16
END_OF_FILE = b"\x04"  # Ctrl-D, the default VEOF


def set_window(fd: int, payload: bytes) -> None:
    """Give a terminal the size that a RESIZE frame carries."""
    size = json.loads(payload)
    packed = struct.pack("HHHH", int(size["height"]), int(size["width"]), 0, 0)
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, packed)
    except OSError:
        pass


def exit_code(status: int) -> int:
    """A wait status as a shell tells it: 128 and the signal's number for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


class Execution:
    """Moves bytes between the process and the client until the process is over.

    ``spawn`` starts the process on three descriptors (stdin, stdout, stderr) and a fourth that is
    told why its command cannot begin, which standard error tells as well; ``terminal`` makes a
    terminal (master, slave) where one is wanted; ``on_over`` is called once at the end.
    """

    def __init__(
        self,
        loop: Loop,
        client: Client,
        spawn: Callable[[tuple[int, int, int], int], int],
        *,
        terminal: Callable[[], tuple[int, int]] | None,
        on_over: Callable[[Execution], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._tty = terminal is not None
        self._on_over = on_over
        self._sources: dict[int, int] = {}  # descriptor -> kind of frame
        self._owned: set[int] = set()
        self._alive = True
        inner = self._open_terminal(terminal) if terminal else self._open_pipes()
        ours = set(inner) - self._owned
        try:
            word = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            ours.add(word)
            self.pid = spawn(inner, word)
        except BaseException:
            for fd in list(self._owned):
                self._close(fd)
            raise
        finally:
            for fd in ours:
                os.close(fd)
        client.on_frame = self._frame
        client.on_room = self._watch_sources
        client.on_close = self._abandoned
        self._watch_sources()
        if not self._tty:
            self._watch_stdin(0)
        loop.on_end(self.pid, self._ended)

    def _open_terminal(self, terminal: Callable[[], tuple[int, int]]) -> tuple[int, int, int]:
        master, slave = terminal()
        os.set_blocking(master, False)
        # A process that closes the terminal goes on: if nobody had it open any more we would close
        # our side, and the kernel hang up on the process (SIGHUP).
        self._owned |= {master, slave}
        self._sources[master] = wire.OUTPUT
        self._stdin = master
        self._feed = Feed(master, self._stdin_blocked, self._stdin_changed)
        return slave, slave, slave

    def _open_pipes(self) -> tuple[int, int, int]:
        pipes: list[tuple[int, int]] = []
        try:
            for _ in range(3):
                pipes.append(os.pipe())
        except OSError:
            for fd in chain.from_iterable(pipes):
                os.close(fd)
            raise
        (stdin, self._stdin), (out, stdout), (err, stderr) = pipes
        for fd in (self._stdin, out, err):
            os.set_blocking(fd, False)
            self._owned.add(fd)
        self._sources = {out: wire.OUTPUT, err: wire.ERROR_OUTPUT}
        self._feed = Feed(self._stdin, self._stdin_blocked, self._stdin_changed)
        return stdin, stdout, stderr

    def _stdin_blocked(self, blocked: bool) -> None:
        self._client.read_on(not blocked)
        if self._tty:
            self._loop.watch(self._stdin, READ | WRITE if blocked else READ, self._terminal_ready)
        elif blocked:
            self._watch_stdin(WRITE)
        else:
            self._watch_stdin(0)

    def _watch_stdin(self, events: int) -> None:
        """Of a pipe one hears without asking that nobody reads it any more."""
        if self._stdin in self._owned:
            self._loop.watch(self._stdin, events, self._stdin_ready)

    def _stdin_ready(self, events: int) -> None:
        if events & ~WRITE:
            self._feed.abandon()
        else:
            self._feed.resume()

    def _stdin_changed(self) -> None:
        taken = wire.frame(wire.INPUT_TAKEN, wire.OFFSET.pack(self._feed.taken))
        self._client.send_newest(taken)
        if self._feed.closed and not self._tty:
            self._client.send(wire.frame(wire.INPUT_CLOSED))
            self._close(self._stdin)

    def _terminal_ready(self, events: int) -> None:
        if events & WRITE:
            self._feed.resume()
        if events & ~WRITE:
            self._pump(self._stdin)

    def _watch_sources(self) -> None:
        for fd in self._sources:
            if self._tty:
                self._loop.watch(fd, READ, self._terminal_ready)
            else:
                self._loop.watch(fd, READ, partial(self._pump_ready, fd))

    def _pump_ready(self, fd: int, _: int) -> None:
        self._pump(fd)

    def _pump(self, fd: int) -> None:
        """Pass on what there is; pause while the client does not take it."""
        while fd in self._sources:
            if self._client.full:
                self._loop.forget(fd)
                return
            try:
                data = os.read(fd, _PORTION)
            except BlockingIOError:
                return
            except OSError:  # EIO: somebody hung up the terminal
                data = b""
            if not data:
                self._close(fd)
                return
            self._client.send(wire.frame(self._sources[fd], data))

    def _frame(self, _: Client, kind: int, payload: bytes) -> None:
        if self._stdin not in self._owned:
            return
        if kind == wire.INPUT:
            self._feed.write(payload)
        elif kind == wire.INPUT_END and self._tty:
            self._feed.write(END_OF_FILE)
        elif kind == wire.INPUT_END:
            self._feed.end(lambda: self._close(self._stdin))
        elif kind == wire.RESIZE and self._tty:
            set_window(self._stdin, payload)

    def _ended(self, status: int | None) -> None:
        self._alive = False
        code = None if status is None else exit_code(status)
        # What it left running may keep the pipes open for ever: only what is there now counts. A
        # slow client is no reason to lose any of it: a pipe holds little.
        for fd in list(self._sources):
            os.set_blocking(fd, False)
            self._drain(fd)
        self._client.on_room = None
        self._client.send(wire.json_frame(wire.CODE, {"code": code}))
        self._client.finish()
        self._over()

    def _drain(self, fd: int) -> None:
        for _ in range(64):  # what is left behind may write without end
            try:
                data = os.read(fd, _PORTION)
            except OSError:
                return
            if not data:
                return
            self._client.send(wire.frame(self._sources[fd], data))

    def finish(self) -> None:
        """The run is over, and the process with it: say so now."""
        if self._alive:
            self._loop.forget_end(self.pid)
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid = status = 0
            self._ended(status if pid else None)

    def _abandoned(self) -> None:
        if self._alive:
            for target in (-self.pid, self.pid):
                try:
                    os.kill(target, signal.SIGKILL)
                except OSError:
                    pass

    def _over(self) -> None:
        for fd in list(self._owned):
            self._close(fd)
        self._on_over(self)

    def _close(self, fd: int) -> None:
        if fd in self._owned:
            self._owned.discard(fd)
            self._sources.pop(fd, None)
            self._loop.forget(fd)
            os.close(fd)


def argv_of(payload: bytes) -> tuple[Sequence[str], bool]:
    """The command and whether it wants a terminal, from an EXEC frame."""
    value = json.loads(payload)
    return [str(word) for word in value["argv"]], bool(value["tty"])
