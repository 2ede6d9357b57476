"""Where a job's output comes out, and its way into the log: a pipe, or a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from neuro.engines.sandbox.client import Feed
from neuro.engines.sandbox.execution import END_OF_FILE, set_window
from neuro.engines.sandbox.loop import READ, WRITE, Loop
from neuro.engines.sandbox.output import NoSpace, OutputLog

_PIPE_SIZE = 1 << 20
_PORTION = 1 << 16
_ROUNDS = 8  # portions in one go before others get their turn
_PATIENCE = 0.5  # seconds before a full disk is tried again


class _Outlet:
    """Moves output to the log. ``inner`` is (stdin, output) of the job; ``over`` at the end."""

    def __init__(
        self,
        loop: Loop,
        log: OutputLog,
        on_written: Callable[[], None],
        on_over: Callable[[], None],
        source: int,
        inner: tuple[int, int],
    ) -> None:
        self.inner = inner
        self.over = False
        self._loop = loop
        self._log = log
        self._on_written = on_written
        self._on_over = on_over
        self._source = source
        self._waiting = False
        os.set_blocking(source, False)

    def begin(self) -> None:
        """The job has its own copies of ``inner`` now."""
        for fd in set(self.inner):
            os.close(fd)
        self._resume()

    def drain(self) -> None:
        """Every process of the job is gone: take what is left."""
        if not self._waiting:
            self._ready(READ)

    def _resume(self) -> None:
        self._waiting = False
        if not self.over:
            self._loop.watch(self._source, READ, self._ready)

    def _ready(self, events: int) -> None:
        before = self._log.end
        try:
            for _ in range(_ROUNDS):
                if not self._move():
                    self._end()
                    break
        except BlockingIOError:
            pass
        except NoSpace:
            # What was not read stays in the pipe, and the job waits like at a slow terminal.
            self._loop.forget(self._source)
            self._waiting = True
            self._loop.after(_PATIENCE, self._resume)
        if self._log.end > before:
            self._on_written()
        if self.over:
            self._on_over()

    def _move(self) -> bool:
        """Move one portion; False at the end. Raises BlockingIOError, NoSpace."""
        raise NotImplementedError

    def _end(self) -> None:
        self.over = True
        self._loop.forget(self._source)
        os.close(self._source)


class PipeOutlet(_Outlet):
    """Both output streams are one pipe, so their order is kept; stdin is ``given``, or empty."""

    def __init__(
        self,
        loop: Loop,
        log: OutputLog,
        on_written: Callable[[], None],
        on_over: Callable[[], None],
        given: int | None,
    ) -> None:
        source, output = os.pipe()
        try:
            fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        except OSError:
            pass  # a plain user with many jobs has used up his pages for pipes
        stdin = _nothing() if given is None else given
        super().__init__(loop, log, on_written, on_over, source, (stdin, output))

    def _move(self) -> bool:
        return self._log.splice(self._source) > 0


class TerminalOutlet(_Outlet):
    """A pseudo-terminal (master, slave) of the job's own, with a keyboard or for output only.

    ``pause`` and ``on_change`` as an ``Inlet`` calls them.
    """

    def __init__(
        self,
        loop: Loop,
        log: OutputLog,
        on_written: Callable[[], None],
        on_over: Callable[[], None],
        terminal: tuple[int, int],
        *,
        keyboard: bool,
        pause: Callable[[bool], None],
        on_change: Callable[[], None],
    ) -> None:
        master, slave = terminal
        set_window(master, b'{"width":80,"height":24}')
        stdin = slave if keyboard else _nothing()
        super().__init__(loop, log, on_written, on_over, master, (stdin, slave))
        # While we have it open, a command that closes it goes on: at the end of its last user we
        # would close our side too, and the kernel hang up on the command (SIGHUP).
        self._kept_open: int | None = os.dup(slave)
        self._unwritten = b""
        self._pause = pause
        self._feed = Feed(master, self._blocked, on_change)

    def drain(self) -> None:
        """Every process of the job is gone: take what is left."""
        if self._kept_open is not None:
            os.close(self._kept_open)
            self._kept_open = None
        super().drain()

    @property
    def taken(self) -> int:
        """How many bytes were typed in all."""
        return self._feed.taken

    @property
    def closed(self) -> bool:
        """Whether nobody will read what is typed."""
        return self.over

    def write(self, data: bytes) -> None:
        """Type ``data``."""
        if not self.over:
            self._feed.write(data)

    def end(self) -> None:
        """Type the end of a file."""
        self.write(END_OF_FILE)

    def resize(self, payload: bytes) -> None:
        """Set the window's size as a RESIZE frame says."""
        if not self.over:
            set_window(self._source, payload)

    def _blocked(self, blocked: bool) -> None:
        self._loop.watch(self._source, READ | WRITE if blocked else READ, self._ready)
        self._pause(blocked)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._feed.resume()
        if events & ~WRITE:
            super()._ready(events)

    def _move(self) -> bool:
        if not self._unwritten:
            try:
                self._unwritten = os.read(self._source, _PORTION)
            except BlockingIOError:
                raise
            except OSError:  # EIO: no process has the terminal open
                return False
            if not self._unwritten:
                return False
        self._unwritten = self._unwritten[self._log.write(self._unwritten) :]
        return True


def _nothing() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
