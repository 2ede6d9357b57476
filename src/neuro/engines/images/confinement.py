"""A process that works on layers: root of a user namespace of its own, in a folder as its root.

Two processes: the first keeps this user's rights and does nothing with them but give the second
its user namespace. The second sees the folder and nothing else, has no network, sees no other
processes, and is behind the filter of system calls that jobs have.

For a module's ``main``, which ``processes`` starts: descriptors are handed over by number.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable

from neuro.engines.images.faults import ImageFault, refused
from neuro.engines.sandbox import kernel, seccomp

REPORT = 3  # the descriptor for the answer; others follow
OWNERS = 1 << 16  # user ids that a run has on a root server
_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
# Over the folder's own files: their owners, all their modes, and what programs may by their file.
_RIGHTS = (0, 1, 3, 4, 31)  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP
_MEMORY = 1 << 30
_NICE, _KILLED_FIRST = 5, "500"
_LATER = 10  # seconds of processor time from the signal until the kernel ends the process


def run(
    folder: str,
    work: Callable[[int, int], dict[str, object]],
    *,
    passed: int,
    largest: int,
    seconds: int,
    base: int = 0,
) -> None:
    """Let ``work`` answer, in the second process; what it raises is answered too.

    It is given the folder, open, and to how many user ids it can give files, from 0 on. ``passed``
    is how many descriptors there are besides the report. No file gets larger than ``largest``,
    and the second process ends after so many seconds of processor time. User ``base`` of the
    machine is user 0 there, which of a plain user's they are themselves.
    """
    kernel.die_with_parent()
    # Where memory is short, a layer can be unpacked later; and whoever waits for it can wait.
    kernel.write("/proc/self/oom_score_adj", _KILLED_FIRST)
    os.nice(_NICE)
    fence = seccomp.program()  # it imports what cannot be found later
    user, group = os.geteuid(), os.getegid()
    owners = OWNERS if gives_owners() else 1
    ready, mapped = os.pipe()
    pid = kernel.clone(_NAMESPACES)
    if pid == 0:
        try:
            os.close(mapped)
            kernel.die_with_parent()
            os.read(ready, 1)

            def confined() -> dict[str, object]:
                _enter(folder, REPORT + passed, largest, seconds)
                seccomp.install(fence)
                root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                return work(root, owners)

            os.write(REPORT, json.dumps(_answer(confined)).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(0)
    if owners == 1:
        kernel.write(f"/proc/{pid}/setgroups", "deny")
        kernel.write(f"/proc/{pid}/uid_map", f"0 {user} 1")
        kernel.write(f"/proc/{pid}/gid_map", f"0 {group} 1")
    else:
        kernel.map_ids(pid, f"0 {base} {OWNERS}")
    os.write(mapped, b".")
    os.waitpid(pid, 0)


def gives_owners() -> bool:
    """Whether this process can give files to all users that a run has."""
    if os.geteuid() != 0:
        return False
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return any(_covers(line.split()) for line in file)


def _covers(mapped: list[str]) -> bool:
    return int(mapped[0]) == 0 and int(mapped[2]) >= OWNERS


def _answer(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return work()
    except ImageFault as fault:
        return _answer_of(fault)
    except MemoryError:
        return _answer_of(refused("The layer needs too much memory to be unpacked."))
    except OSError as error:
        return {"trouble": error.strerror or str(error)}


def _answer_of(fault: ImageFault) -> dict[str, object]:
    return {"kind": fault.kind.value, "sentence": fault.sentence}


def _out_of_time(*_: object) -> None:
    raise refused("The layer takes too much processor time.")


def _enter(folder: str, last: int, largest: int, seconds: int) -> None:
    """Make the folder the root, and give up all that is not needed to write into it."""
    tree = kernel.copy_tree(folder, recursive=False)
    flags = kernel.ATTR_NOSUID | kernel.ATTR_NODEV | kernel.ATTR_NOEXEC
    kernel.set_attributes(tree, flags)
    place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kernel.attach(tree, place)
    os.fchdir(tree)
    kernel.enter_root()
    os.umask(0)
    kernel.close_between(last + 1)
    bounds = {
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_FSIZE: largest,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 1024,
    }
    for what, most in bounds.items():
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))
    # The first process of a pid namespace has to say itself what the signal does to it.
    signal.signal(signal.SIGXCPU, _out_of_time)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + _LATER))
    kernel.become_root_inside()
    kernel.drop_capabilities(_RIGHTS)
