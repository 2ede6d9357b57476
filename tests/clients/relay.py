"""A command of a warm process: ``python -I -S relay.py SOCKET PROGRAM ARGUMENT…``.

Hands its descriptors, variables and folder on, waits, and ends as the command has ended; where a
signal ends it, the command ends too. Kills itself, which no client does, where there was no
command. Imports almost nothing: it is started for each command.
"""

from __future__ import annotations

import _signal
import _socket
import os
import sys


def main() -> None:
    where, program, *arguments = sys.argv[1:]
    # How an interpreter's streams are buffered follows from what they are when it starts.
    if not (_is_nothing(0) and _is_pipe(1) and _is_pipe(2)):
        os.execv(program, [program, *arguments])
    os.umask(umask := os.umask(0))
    words = [os.fsencode(word) for word in arguments]
    variables = [b"=".join(pair) for pair in os.environb.items()]
    message = b"\0".join([b"%o" % umask, os.getcwdb(), b"%d" % len(words), *words, *variables])
    fds = b"".join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    try:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        connection.connect(where)
        connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        answer = connection.recv(1 << 16).decode()
    except OSError as error:
        answer = f"the warm process cannot be reached: {error}"
    try:
        code = int(answer or -_signal.SIGKILL)
    except ValueError:
        print(answer, file=sys.stderr, flush=True)
        code = -_signal.SIGKILL  # which is no client's way to end
    if code < 0:
        if code not in (-_signal.SIGKILL, -_signal.SIGSTOP):
            _signal.signal(-code, _signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _is_pipe(fd: int) -> bool:
    return os.fstat(fd).st_mode & 0o170000 == 0o010000


def _is_nothing(fd: int) -> bool:
    return os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev


if __name__ == "__main__":
    main()
