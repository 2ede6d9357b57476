"""The process that makes a step's fence and runs its command (``stepping``).

Two processes. The first, a fork of ``step_server``, gives the second the users of its namespaces,
and ends it when the builder says so or is gone. The second makes the root (``step_root``), begins
the command, and is the first process in there until that is over: with it the kernel ends all that
the command has left behind.
"""

from __future__ import annotations

import marshal
import os
import select
import signal

from neuro.builder import step_root
from neuro.builder.step_root import NoRoot
from neuro.engines.sandbox import kernel, launcher, nesting
from neuro.engines.sandbox.inside import Refused
from neuro.engines.sandbox.launcher import Command
from neuro.engines.sandbox.nesting import Given

TYPE_CHECKING = False  # what begins steps imports little
if TYPE_CHECKING:
    from typing import Any, NoReturn

_USERS = 1 << 16  # of a run on a root server, and of an image
_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
_SHARED_MEMORY = ("shmall", "msgmni", "sem")  # see ``ipc``
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(order: int, report: int, lifeline: int) -> None:
    """Run the step that the file ``order`` describes, and tell ``report`` what came of it.

    It goes on as long as somebody holds the other end of ``lifeline``. Raises OSError.
    """
    with open(order, "rb") as file:
        file.seek(0)
        step = marshal.load(file)  # noqa: S302 - the builder wrote it
    given = Given(**step["given"])
    is_single = _users() < _USERS
    limits = _limits()
    kinds = _NAMESPACES
    if not step["network"]:
        kinds |= kernel.CLONE_NEWNET
        import neuro.engines.sandbox.network  # noqa: F401 - it cannot be found later
    ready, mapped = os.pipe()
    kernel.show_memory()  # who is hidden cannot be given users
    try:
        pid = kernel.clone(kinds)
    except OSError as error:
        tell(report, "fault", f"this machine makes no fence within a job's: {error.strerror}")
        return
    if pid == 0:
        try:
            os.close(mapped)
            os.close(lifeline)
            kernel.die_with_parent()
            if os.read(ready, 1):
                _set_limits(limits)
                _inside(step, given, report, is_single=is_single)
        finally:  # nothing may return from here: this is a copy
            os._exit(1)
    kernel.hide_memory()
    try:
        _map(pid, is_single=is_single)
    except OSError as error:
        tell(report, "fault", f"a step cannot be given the users of its image: {error.strerror}")
        os.close(mapped)
    else:
        os.write(mapped, b".")
    _wait(pid, lifeline)


def _users() -> int:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return sum(int(line.split()[2]) for line in file)


def _limits() -> dict[str, str]:
    """What System V memory the job may have, for the step's own IPC namespace."""
    found = {}
    for name in _SHARED_MEMORY:
        with open(f"/proc/sys/kernel/{name}", encoding="ascii") as file:
            found[name] = file.read()
    return found


def _set_limits(limits: dict[str, str]) -> None:
    for name, value in limits.items():
        try:
            kernel.write(f"{nesting.PLACE}/proc/sys/kernel/{name}", value)
        except OSError:
            pass  # before Linux 6.11 nobody can but the machine's root, for no run


def _map(pid: int, *, is_single: bool) -> None:
    if is_single:
        kernel.write(f"/proc/{pid}/setgroups", "deny")
    kernel.map_ids(pid, f"0 0 {1 if is_single else _USERS}")


def _wait(pid: int, lifeline: int) -> None:
    """Wait for the second process and, with it, for all of the step."""
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(lifeline, select.POLLIN)
    if process not in {fd for fd, _ in poll.poll()}:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def tell(report: int, kind: str, what: object) -> None:
    """Tell the builder what came of a step: its ``code``, or a ``fault``. Raises OSError."""
    os.write(report, f"{kind} {what}".encode("utf-8", "backslashreplace"))


def _inside(step: dict[str, Any], given: Given, report: int, *, is_single: bool) -> NoReturn:
    """Make the root, begin the command, wait for it."""
    try:
        kernel.reset_signals()
        kernel.hide_memory()  # not before: see ``main``
        kernel.hide_arguments()
        kernel.set_name("neuro-step")
        kernel.set_hostname(step["hostname"])
        if not step["network"]:
            from neuro.engines.sandbox import network  # large, and seldom needed

            network.raise_loopback()
        step_root.enter(step, given, is_single=is_single)
        env = {"PATH": _PATH, "HOSTNAME": step["hostname"], **step["env"]}
        if is_single:
            # It looks whether it became another user, and there is none to become.
            env.setdefault("APT_CONFIG", step_root.APT_CONFIG)
        system_calls = given.pretending if is_single else given.system_calls
        command = Command(
            step["argv"],
            env,
            step["working_dir"],
            tty=False,
            privileged=True,  # of the step's own namespaces
            filter_program=bytes.fromhex(system_calls),
            user=step["user"],
            single_user=is_single,
        )
    except (NoRoot, Refused, ValueError) as error:
        tell(report, "fault", error)
        os._exit(1)
    except OSError as error:
        tell(report, "fault", f"the root of a step cannot be made: {error.strerror or error}")
        os._exit(1)
    word = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        launcher.become(command, (0, 1, 2), word)
    launcher.restrict(bytes.fromhex(given.system_calls))
    tell(report, "code", _bury(pid))
    os._exit(0)


def _bury(command: int) -> int:
    """Wait for all that end here until the command does; its exit code."""
    for fd in (1, 2):  # what it leaves behind is the only one that could still print
        os.close(fd)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
