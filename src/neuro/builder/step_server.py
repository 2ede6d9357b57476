"""The process that begins steps: it forks one for each, where a new Python would take 30 ms.

``starting`` starts it as a new program, so it has nothing of the builder's memory, arguments or
environment. What it is told of a step are descriptors: what the step is to do is read by the
process that becomes the step, and by no other, so no secret of a step is left here for the next.
Nobody in the job can look into it, and it is over as soon as nobody can ask it any more.
"""

from __future__ import annotations

import os
import signal

# ``socket`` itself takes as long to import as the rest of this program.
from _socket import AF_UNIX, CMSG_LEN, MSG_CMSG_CLOEXEC, SOCK_SEQPACKET, socket
from struct import Struct

from neuro.builder import stepper
from neuro.engines.sandbox import kernel

TYPE_CHECKING = False  # see above
if TYPE_CHECKING:
    from typing import NoReturn

CHANNEL = 0  # where it is asked
# What comes with a request: what to do, where to tell what came of it, who must hold the step for
# it to go on, and where its output goes. See ``stepper.main``.
DESCRIPTORS = Struct("=5i")


def main() -> NoReturn:
    """Begin what is asked for, until the other end is closed."""
    os.chdir("/")
    kernel.set_name("neuro-steps")
    kernel.hide_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder's to hear
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries them
    channel = socket(AF_UNIX, SOCK_SEQPACKET, 0, CHANNEL)
    room = CMSG_LEN(DESCRIPTORS.size)
    while True:
        said, control, _, _ = channel.recvmsg(1, room, MSG_CMSG_CLOEXEC)
        if not said:
            os._exit(0)
        order, report, lifeline, out, errors = DESCRIPTORS.unpack(control[0][2])
        try:
            pid = os.fork()
        except OSError as error:
            _tell_fault(report, f"a step cannot be started: {error.strerror}")
            pid = -1
        if pid == 0:
            _begin(order, report, lifeline, (out, errors))
        for fd in (order, report, lifeline, out, errors):
            os.close(fd)


def _tell_fault(report: int, sentence: str) -> None:
    try:
        stepper.tell(report, "fault", sentence)
    except OSError:
        pass  # nobody waits for it any more


def _begin(order: int, report: int, lifeline: int, streams: tuple[int, int]) -> NoReturn:
    """Be a step's first process, with what is the step's open, and nothing else."""
    try:
        kernel.set_name("neuro-step")
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for target, source in enumerate((null, *streams)):
            os.dup2(source, target)
        first = 3
        for fd in sorted((order, report, lifeline)):
            kernel.close_between(first, fd - 1)
            first = fd + 1
        kernel.close_between(first)
        stepper.main(order, report, lifeline)
    except OSError as error:
        _tell_fault(report, f"a step cannot be begun: {error.strerror or error}")
    except BaseException as error:
        _tell_fault(report, f"a step cannot be begun: {type(error).__name__}: {error}")
    finally:  # nothing may return from here: this is a copy
        os._exit(1)
