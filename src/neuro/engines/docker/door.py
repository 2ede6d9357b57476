"""The door through which commands of a container come to their keeper: see ``launcher_program``.

Any process of the run may knock. Who does not say the word that the keeper expects is sent away;
who a process is, the kernel says.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence

from neuro.engines.docker import launcher_program
from neuro.engines.sandbox import layout
from neuro.engines.sandbox.loop import READ, Loop

PATIENCE = 20.0  # seconds for a launcher to do what it does at once
_CREDENTIALS = struct.Struct("3i")
_STATUS = struct.Struct("=i")
_KILLED = int(signal.SIGKILL)
NOT_FOUND, NOT_EXECUTABLE = 127, 126


class Door:
    """Listens below ``folder``, which is what the container gets to see."""

    def __init__(self, folder: str) -> None:
        """Raises OSError."""
        os.makedirs(folder)
        os.chmod(folder, 0o755)  # noqa: S103 - whoever the container's user is
        path = f"{folder}/{launcher_program.NAME}"
        with open(path, "wb") as file:
            file.write(launcher_program.executable())
        os.chmod(path, 0o555)  # noqa: S103
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with layout.ShortPath(folder, launcher_program.DOOR) as place:
            self.listener.bind(place)
            os.chmod(place, 0o666)  # noqa: S103 - the container's user may be any
        self.listener.listen(64)

    def admit(self, word: str, seconds: float = PATIENCE) -> Visitor:
        """The launcher that says ``word``. Raises OSError where none comes."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self.listener, select.POLLIN)
            if not poll.poll(left * 1000):
                break
            connection, _ = self.listener.accept()
            connection.settimeout(left)
            try:
                visitor = Visitor(connection)
            except OSError:
                connection.close()
                continue
            if visitor.word == word:
                connection.settimeout(PATIENCE)
                return visitor
            connection.close()
        raise OSError(errno.ETIMEDOUT, "the container does not answer")


class Visitor:
    """A launcher. ``process`` is its number here, ``user`` its user."""

    def __init__(self, connection: socket.socket) -> None:
        """Raises OSError where it says nothing."""
        self.connection = connection
        self.word, self.process, self.user = self._hear(256)
        if not self.process:
            raise OSError(0, "the containers' processes cannot be seen from here")

    def give(self, streams: Sequence[int], word: int, *, tty: bool, env: Mapping[str, str]) -> int:
        """Let the command begin on its streams; its process. Raises OSError.

        ``env`` are values for variables that its environment has already.
        """
        flags = launcher_program.WITH_TERMINAL if tty else 0
        said = [bytes([flags]), *(f"{name}={value}\0".encode() for name, value in env.items())]
        socket.send_fds(self.connection, said, [*streams, word])
        _, process, _ = self._hear(1)
        if not process:
            raise OSError(0, "the command cannot be seen from here")
        return process

    def on_end(self, loop: Loop, action: Callable[[int | None], None]) -> None:
        """Call ``action`` once with the command's wait status; None where its launcher is gone.

        The launcher ends when the action is done.
        """
        self.connection.setblocking(False)

        def ready(_: int) -> None:
            try:
                said = self.connection.recv(_STATUS.size)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            loop.forget(self.connection.fileno())
            try:
                action(_STATUS.unpack(said)[0] if len(said) == _STATUS.size else None)
            finally:
                self.connection.close()

        loop.watch(self.connection.fileno(), READ, ready)

    def close(self) -> None:
        """Let go of it."""
        self.connection.close()

    def _hear(self, size: int) -> tuple[str, int, int]:
        room = socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, _, _ = self.connection.recvmsg(size, room)
        if not data:
            raise OSError(errno.ECONNRESET, "the launcher is gone")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                process, user, _ = _CREDENTIALS.unpack(content)
                return data.decode("utf-8", "replace"), process, user
        raise OSError(0, "the kernel does not say who it is")


def refusal(said: bytes, name: str) -> tuple[int, str]:
    """The exit code and the reason for what a launcher says of a command that cannot begin."""
    number = -_STATUS.unpack(said)[0] if len(said) == _STATUS.size else errno.EIO
    if number == errno.ENOENT:
        return NOT_FOUND, f"{name}: command not found" if name else "the command has no name"
    return NOT_EXECUTABLE, f"{name}: {os.strerror(number)}"


class Word:
    """Where the keeper hears why the run's command does not begin, or that it has begun."""

    def __init__(self, loop: Loop, name: str, on_begun: Callable[[], None]) -> None:
        """``on_begun`` is called when the command, whose ``name`` this is, runs."""
        self.refusal: tuple[int, str] | None = None
        self._loop = loop
        self._name = name
        self._on_begun = on_begun
        self._fd: int | None = None

    def open(self) -> int:
        """The end for the launcher. Raises OSError."""
        self._fd, theirs = os.pipe()
        self._loop.watch(self._fd, READ, lambda _: self._read())
        return theirs

    def read_to_end(self) -> None:
        """The command is over, so all was said."""
        while self._fd is not None:
            self._read()

    def _read(self) -> None:
        if self._fd is None:
            return
        said = os.read(self._fd, _STATUS.size)
        if said:
            self.refusal = self.refusal or refusal(said, self._name)
            return
        self._loop.forget(self._fd)
        os.close(self._fd)
        self._fd = None
        if self.refusal is None:
            self._on_begun()


def heard(word: int, name: str, seconds: float = PATIENCE) -> tuple[int, str] | None:
    """Why a command does not begin; None where it has. Blocks until that is certain."""
    poll = select.poll()
    poll.register(word, select.POLLIN)
    if not poll.poll(seconds * 1000):
        return None
    said = os.read(word, _STATUS.size)
    return refusal(said, name) if said else None
