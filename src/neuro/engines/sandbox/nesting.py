"""What a run is given that builds images, and so makes fences within its own (``neuro.builder``).

::

    /run/nesting/step     where a step puts its root together
    /run/nesting/proc     the run's /proc with nothing over it: the kernel wants to see one before
                          it mounts another in a user namespace
    /run/nesting/land     our layers over the machine's userland, and the template of a root
    /run/nesting/<n>      the machine's folders that lie lowest in a run without an image, if no
                          data of the platform lies in them
    /run/nesting/daemon   a socket of a daemon of containers that builds, if one does (``relay``)
    /run/nesting/given    how these belong together, and the filter of a step, as JSON

All of it is what every run sees of the machine: only the platform's own program gets here, and it
is not to be trusted with more than the run. The run's own view of the machine is made read-only
besides, the interpreter among it: a step must not be able to change what begins the next one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from neuro.engines.sandbox import kernel
from neuro.engines.sandbox.kernel import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
)

TYPE_CHECKING = False  # typing itself costs every job memory
if TYPE_CHECKING:
    from neuro.engines.sandbox.identities import Block
    from neuro.engines.sandbox.launch import Plan
    from neuro.engines.sandbox.userland import Userland

PLACE = "/run/nesting"
CACHE = "/cache"  # as in ``domain.images``, which would cost every job memory
DAEMON = f"{PLACE}/daemon"
# Who says this first on a connection to ``DAEMON`` closes it for good. No request begins so.
LAST_WORD = b"NO MORE\n"
_ONE = struct.Struct("=B")


class Given:
    """``overlays`` are the folders of a root without an image, ``lower`` what lies below each.

    The highest comes first. ``read_only`` are shown as they are in the run, ``covered`` show
    empty. ``system_calls`` is the filter of a step in hexadecimal, and ``pretending`` that of one
    whose only user is root.
    """

    def __init__(
        self,
        *,
        overlays: tuple[str, ...],
        lower: tuple[tuple[str, ...], ...],
        read_only: tuple[str, ...],
        covered: tuple[str, ...],
        writable: bool,
        plain: bool,
        system_calls: str,
        pretending: str,
    ) -> None:
        self.overlays = overlays
        self.lower = lower
        self.read_only = read_only
        self.covered = covered
        self.writable = writable
        self.plain = plain
        self.system_calls = system_calls
        self.pretending = pretending


def lowest(land: Userland) -> tuple[str, ...]:
    """The machine's folders that a run is given as they are.

    None where data of the platform lies in one: there nothing covers it, and no step can start from
    the userland anyway.
    """
    return () if land.covered else land.overlays


def trees(plan: Plan, block: Block, init: int, daemon: str = "") -> list[int]:
    """Mounts for ``arrange``, made by who has the rights to. Raises OSError.

    ``daemon`` is the socket of this machine for ``DAEMON``, if there is one.
    """
    found = [_bare_proc(init)]
    try:
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(block.stage, kernel.CLONE_NEWNS)
            try:
                os.chdir(f"{plan.folder}/stage")
                found.append(kernel.copy_tree("land", recursive=False))
                for path in lowest(plan.userland):
                    found.append(kernel.copy_tree(plan.userland.lower(path), recursive=False))
            finally:
                kernel.setns(home, kernel.CLONE_NEWNS)
                os.chdir("/")
        finally:
            os.close(home)
        if daemon:
            found.append(kernel.copy_tree(daemon, recursive=False))
    except BaseException:
        for tree in found:
            os.close(tree)
        raise
    return found


def _bare_proc(init: int) -> int:
    """A mount of /proc for the pid namespace of ``init``. Raises OSError.

    The kernel makes it for the namespace of who asks, in which only a child can be.
    """
    import socket  # what begins steps does without it

    from neuro.engines.sandbox import wire

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            first = os.fork()
            if first == 0:
                try:
                    process = os.pidfd_open(init)
                    kernel.setns(process, kernel.CLONE_NEWPID)
                    second = os.fork()
                    if second == 0:
                        attributes = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC
                        tree = kernel.new_tree("proc", attributes)
                        socket.send_fds(theirs, [_ONE.pack(0)], [tree])
                    else:
                        os.waitpid(second, 0)
                except OSError as error:
                    theirs.send(_ONE.pack(min(error.errno or 5, 255)))
                finally:
                    os._exit(0)
        os.waitpid(first, 0)
        said, fds = wire.receive_descriptors(ours, _ONE.size, 1)
    if not fds:
        number = _ONE.unpack(said)[0] if said else 5
        raise OSError(number, os.strerror(number))
    return fds[0]


def arrange(plan: Plan, given: Sequence[int]) -> None:
    """Attach what ``trees`` made in the run, as its second process. Raises OSError."""
    os.mkdir(PLACE, 0o700)
    names = ["proc", "land", *map(str, range(len(lowest(plan.userland))))]
    for name in (*names, "step"):
        os.mkdir(f"{PLACE}/{name}")
    if len(given) > len(names):
        os.close(os.open(DAEMON, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        names.append(os.path.basename(DAEMON))
    for tree, name in zip(given, names, strict=True):
        kernel.attach_at(tree, f"{PLACE}/{name}")
    import json  # what begins steps does without it

    with open(f"{PLACE}/given", "w", encoding="ascii") as file:
        json.dump(vars(_described(plan)), file)


def freeze(plan: Plan) -> None:
    """Let nothing of the machine's userland be written to any more. Raises OSError."""
    flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV
    for path in plan.userland.overlays:
        kernel.mount("none", path, flags=flags)


def closed(plan: Plan) -> tuple[str, ...]:
    """Where nothing of a user's may be mounted: what the program is made of, and what it is given.

    A user's file over either would be code with this run's rights.
    """
    return (*plan.userland.overlays, *plan.userland.read_only, os.path.dirname(PLACE))


def _described(plan: Plan) -> Given:
    land = plan.userland
    return Given(
        overlays=("/", *lowest(land)),
        lower=((f"land/{land.template}",), *_lower(land)),
        read_only=land.read_only,
        covered=land.covered,
        writable=land.writable,
        plain=plan.plain,
        system_calls=plan.system_calls,
        pretending=plan.pretending,
    )


def _lower(land: Userland) -> list[tuple[str, ...]]:
    """What lies below each of the overlays, the highest first."""
    return [
        (*(f"land/{name}" for name in reversed(land.between.get(path, ()))), str(number))
        for number, path in enumerate(lowest(land))
    ]


def read() -> Given | None:
    """What the run that we are in was given; None where it may not nest."""
    import json

    try:
        with open(f"{PLACE}/given", encoding="ascii") as file:
            value = json.load(file)
    except OSError:
        return None
    lower = tuple(map(tuple, value.pop("lower")))
    for name in ("overlays", "read_only", "covered"):
        value[name] = tuple(value[name])
    return Given(lower=lower, **value)
