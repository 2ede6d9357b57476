"""The last steps before a command begins, the same for a run's command and for ``exec``.

The process has entered the run's namespaces. It closes everything, drops everything, and only then
looks at a path that a user wrote. What went wrong is told through one descriptor, which the kernel
closes at the moment when the command begins.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import termios
from collections.abc import Callable, Mapping, Sequence

from neuro.engines.exhaustion import BEYOND_LIMITS
from neuro.engines.sandbox import image_users, kernel, seccomp
from neuro.engines.sandbox.image_users import User

TYPE_CHECKING = False  # typing itself costs every job memory
if TYPE_CHECKING:
    from typing import NoReturn

    from neuro.engines.sandbox.loop import Loop

_WORD = 3
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# The machine's fault, or a volume's, and not the command's: it may be begun again.
NOT_READY, VOLUME_NOT_READY = 0, -1
_SEPARATOR = b"\0"


class Word:
    """Where the supervisor hears why the command does not begin, or that it has begun.

    ``refusal`` is the exit code and the reason, once there is one: the first that is told.
    """

    def __init__(self, loop: Loop, on_begun: Callable[[], None]) -> None:
        """``on_begun`` is called when the word ended without a refusal."""
        self.refusal: tuple[int, str] | None = None
        self._loop = loop
        self._on_begun = on_begun
        self._fd: int | None = None

    def open(self) -> int:
        """The end that ``become`` writes to. Raises OSError."""
        from neuro.engines.sandbox.loop import (
            READ,  # a step of a build has no loop, and starts anew
        )

        self._fd, theirs = os.pipe()
        self._loop.watch(self._fd, READ, lambda _: self._read())
        return theirs

    def refuse(self, code: int, reason: str) -> None:
        """It is known already that the command will not begin."""
        self.refusal = self.refusal or (code, reason)

    def read_to_end(self) -> None:
        """Every process that could write is gone."""
        while self._fd is not None:
            self._read()

    def forget(self) -> None:
        """Hear no more."""
        if self._fd is not None:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = None

    def _read(self) -> None:
        if self._fd is None:
            return
        said = os.read(self._fd, 4096)
        if said:
            self.refusal = self.refusal or refusal(said)
            return
        self.forget()
        if self.refusal is None:
            self._on_begun()


class Command:
    """What is to begin, and with which rights."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        working_dir: str,
        *,
        tty: bool,
        privileged: bool,
        filter_program: bytes,
        processes: int = 0,
        user: str | None = None,
        single_user: bool = False,
        or_root: bool = False,
    ) -> None:
        """``processes`` limits their number for the run's user, 0 leaves that to its group.

        ``user`` is one of the image's (see ``image_users``), None for root of a run without an
        image; in a ``single_user`` run there is nobody else to be. ``or_root``: where the working
        directory is gone, / will do. Raises ValueError for what no process can be given.
        """
        for name in env:
            if not name or "=" in name:
                raise ValueError(f"{name!r} cannot be the name of an environment variable")
        self.argv = [kernel.as_bytes(word) for word in argv]
        self.env = {kernel.as_bytes(name): kernel.as_bytes(value) for name, value in env.items()}
        self.working_dir = kernel.as_bytes(working_dir)
        self.tty = tty
        self.privileged = privileged
        self.filter_program = filter_program
        self.processes = processes
        self.user = user
        self.single_user = single_user
        self.or_root = or_root


def become(command: Command, streams: tuple[int, int, int], word: int) -> NoReturn:
    """Turn this process into the command, or write to ``word`` why not (see ``refusal``).

    ``streams`` become its standard input, output and errors.
    """
    code, reason = NOT_EXECUTABLE, "the process ended before the command began"
    try:
        _arrange(streams, word)
        os.setsid()
        if command.tty:
            fcntl.ioctl(1, termios.TIOCSCTTY, 0)  # the input need not be one
        keep = tuple(kernel.PRIVILEGED.values()) if command.privileged else ()
        if command.processes:
            limits = (command.processes, command.processes)
            resource.setrlimit(resource.RLIMIT_NPROC, limits)
        if command.user is not None:
            user = image_users.look_up(command.user)
            command.env.setdefault(b"HOME", user.home.encode("utf-8", "replace"))
            if not command.single_user:
                _become(user, keep)
                keep = () if user.uid else keep
        restrict(command.filter_program, keep)
        reason = _enter(command)
        if not reason:
            code, reason = _execute(command)
    except image_users.NoUser as error:
        reason = str(error)
    except OSError as error:
        reason = f"the command cannot be started: {error.strerror}"
    finally:  # whatever it is, it must not return: this is a copy
        try:
            os.write(_WORD, refused(code, reason))
            os.write(2, reason.encode("utf-8", "replace") + b"\n")
        finally:
            os._exit(code)


def refused(code: int, reason: str) -> bytes:
    """What to write to the word where the command does not begin."""
    return b"%d" % code + _SEPARATOR + reason.encode("utf-8", "replace")[:2048]


def code_of(error: Exception) -> int:
    """The exit code for what went wrong inside before the command's own turn."""
    said = error if isinstance(error, OSError) else error.__cause__
    if isinstance(said, OSError) and said.errno in BEYOND_LIMITS:
        return NOT_READY
    return NOT_EXECUTABLE


def reason_of(error: Exception) -> str:
    """What the system said, or the error's own words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def refusal(said: bytes) -> tuple[int, str] | None:
    """The exit code and the reason that ``become`` wrote; None where the command began."""
    code, separator, reason = said.partition(_SEPARATOR)
    return (int(code), reason.decode("utf-8", "replace")) if separator else None


def _arrange(streams: tuple[int, int, int], word: int) -> None:
    """Leave nothing open but the streams and the word."""
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (*streams, word)]
    for target, source in enumerate(above):
        os.dup2(source, target, inheritable=target != _WORD)
    kernel.close_between(_WORD + 1)


def _become(user: User, keep: tuple[int, ...]) -> None:
    """Be a user of the image. Raises OSError."""
    if not (user.uid or user.gid or user.groups):
        return
    for fd in range(_WORD):  # /dev/stdout and its kin, which it may open anew
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
                os.fchown(fd, user.uid, -1)
        except OSError:
            pass  # not the run's own
    kernel.become_user(user.uid, user.gid, user.groups, keep)


def restrict(filter_program: bytes, keep: tuple[int, ...] = ()) -> None:
    """Give up every right but the capabilities to ``keep``. Raises OSError."""
    # Of 0 no notice is taken where cores go to a program; 1 means none, and no file is so short.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    kernel.reset_signals()
    os.umask(0o022)
    kernel.drop_capabilities(keep)
    seccomp.install(filter_program)


def _enter(command: Command) -> str:
    """Go to the working directory; why not, or ""."""
    try:
        os.chdir(command.working_dir)
        if not os.getcwdb().startswith(b"/"):  # "(unreachable)…"
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        os.chdir("/")
        if not command.or_root:
            shown = command.working_dir.decode("utf-8", "replace")
            return f"the working directory {shown} cannot be entered: {error.strerror}"
    return ""


def _execute(command: Command) -> tuple[int, str]:
    """Why the command cannot be executed, with the exit code that shells give for it."""
    name = command.argv[0]
    shown = name.decode("utf-8", "replace")
    if not name:
        return NOT_FOUND, "the command has no name"
    folders = command.env.get(b"PATH", os.fsencode(os.defpath)).split(b":")
    last: OSError | None = None
    for path in [name] if b"/" in name else [os.path.join(place, name) for place in folders]:
        try:
            _execute_file(path, command)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            last = last or error
    if last is None:
        return NOT_FOUND, f"{shown}: command not found"
    return NOT_EXECUTABLE, f"{shown}: {last.strerror}"


def _execute_file(path: bytes, command: Command) -> None:
    try:
        os.execve(path, command.argv, command.env)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        # A script without a first line that names its shell, as every shell executes it.
        os.execve(b"/bin/sh", [b"sh", path, *command.argv[1:]], command.env)
