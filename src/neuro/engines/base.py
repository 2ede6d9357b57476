"""The Engine protocol: everything that the platform asks of what runs jobs on real machines.

An engine is given a job's full specification and a place to report. It knows nothing of users,
HTTP or SQL. The database is the truth about intent, the engine about reality.

The invariants (each one a test in ``tests/engines/contract/``):

1. A job outlives the server: ``kill -9`` of the server at any moment, then a restart, loses no job,
   no log line and no exit code, and leaves no orphan process, mount, cgroup, network or directory.
2. Exit codes are exact; a signal, the memory limit and a stop that was asked for are told apart.
3. CPU, memory and process limits hold; a GPU job sees exactly its GPUs.
4. A job's files are private to it; volumes and files that it was given are where they should be,
   read-only where asked; nothing of the host that was not given is visible. What an engine does not
   have, such as disks, it refuses with a sentence.
5. Two jobs may listen on the same port; ``connect`` reaches a server on the job's 127.0.0.1.
6. Output is kept byte for byte, stdout and stderr in order, with a timestamp per line, up to a size
   limit with rotation. It can be read from any offset, and what was dropped is told exactly.
7. A terminal job gets a real pseudo-terminal with resize, Ctrl-C and Ctrl-D.

Its values are in ``runs``, live connections in ``sessions``; all of it is imported from here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from neuro.engines.runs import (
    Disk,
    Event,
    ExitCause,
    Exited,
    File,
    LogChunk,
    LogExtent,
    Node,
    NodesChanged,
    PullCredentials,
    RunEvent,
    RunRef,
    RunSpec,
    RunState,
    SaveStep,
    Saving,
    Started,
    Usage,
    Volume,
    Waiting,
    WaitReason,
)
from neuro.engines.sessions import Channel, Connection, InputState, Session

__all__ = [
    "Attaches",
    "BuildsImages",
    "Channel",
    "Commits",
    "Connection",
    "Connects",
    "Disk",
    "Engine",
    "EngineFault",
    "Event",
    "Executes",
    "ExitCause",
    "Exited",
    "File",
    "InputState",
    "LogChunk",
    "LogExtent",
    "Measures",
    "Node",
    "NodesChanged",
    "NotListening",
    "NotReady",
    "Placement",
    "PullCredentials",
    "RunEvent",
    "RunNotFound",
    "RunRef",
    "RunSpec",
    "RunState",
    "SaveStep",
    "Saving",
    "Session",
    "Started",
    "Usage",
    "Volume",
    "WaitReason",
    "Waiting",
]


class RunNotFound(LookupError):
    """The engine has no such job, or it is not running where the call needs it running."""


class NotListening(ConnectionError):
    """Nothing in the job listens on that port."""


class EngineFault(RuntimeError):
    """The engine cannot do what was asked; the sentence says what to do."""


class NotReady(EngineFault):
    """The engine cannot do it now, through no fault of the run: it may be tried again."""


class Placement(StrEnum):
    """Who decides when and where a run begins."""

    LOCAL = "local"  # the platform, by what the engine has and what is taken of it
    DELEGATED = "delegated"  # the engine, which has a queue of its own: it is handed every job


class Engine(Protocol):
    """What every engine can do. Every method may be called at any time after ``open``.

    What else an engine can do with runs is told by ``Attaches``, ``Executes``, ``Connects``,
    ``Commits`` and ``Measures``.

    ``notices`` are sentences about what this machine lacks and what to install; ``gpu_model`` names
    its GPUs; ``host_address`` is where a run reaches the platform's API on this machine. All three
    are known after ``open``. ``trouble`` is why it can start nothing now, or None.
    """

    name: str
    placement: Placement
    notices: list[str]
    trouble: str | None
    gpu_model: str | None

    @property
    def host_address(self) -> str: ...

    @property
    def files_owner(self) -> int | None:
        """The user and group of the machine as whom runs write to volumes.

        What is in the storage must belong to them; None means to who runs the server.
        """
        ...

    async def open(self) -> None:
        """Make ready. Runs of an earlier life go on untouched until ``adopt``.

        Raises EngineFault where this machine cannot run jobs, saying what is missing, and NotReady
        where that may pass by itself. After either it may be called again.
        """
        ...

    async def close(self) -> None:
        """Let go: every run goes on and can be adopted by the next engine on the same folder."""
        ...

    async def adopt(self, known: Collection[RunRef]) -> dict[RunRef, RunState]:
        """Take over the runs of an earlier life, once, before the first ``start``.

        Returns those of ``known`` that exist here in any state. Everything that belongs to this
        engine and to none of the jobs in ``known`` is stopped and removed: processes, mounts,
        cgroups, networks, folders, logs. A job whose earlier runs are over but whose log must stay
        is named in ``known`` by any of its runs.
        """
        ...

    async def resync(self, refs: Collection[RunRef]) -> dict[RunRef, RunState]:
        """How these runs are now: for whoever may have missed what was told of them.

        At any time, however often, and in the middle of anything else; no run is changed by it. A
        run that is not in it was not here when this was asked.
        """
        ...

    def events(self) -> AsyncIterator[Event]:
        """What runs wait for, starts and ends as they happen, also of adopted runs. One consumer.
        And that nodes join, drain or leave, or their GPUs do.

        An event may be seen twice (after ``adopt`` and here), and late; none but one of waiting is
        ever missed. This may fail, and is called again. Then what happened until it failed may be
        missed: ``resync`` tells it.
        """
        ...

    async def start(self, spec: RunSpec) -> None:
        """Begin a run; returns when it is under supervision. ``Started``/``Exited`` follow.

        Idempotent: a run that exists already is left as it is, wherever it is. Raises EngineFault
        for what this engine never does, and NotReady where it may be tried again; so may be a run
        that ``Exited`` with NOT_READY or VOLUME_NOT_READY, of which nothing is left.
        """
        ...

    async def stop(self, ref: RunRef, grace: float) -> bool:
        """SIGTERM to the main process, SIGKILL to all after ``grace`` seconds.

        True once the request is in the run's hands: ``Exited`` follows, or was told before. False
        where there is no such run; then no earlier ``start`` brings it about any more.
        """
        ...

    async def remove(self, job_id: str) -> None:
        """Forget a finished job: its log and every trace. Nothing if it is unknown."""
        ...

    def logs(
        self, job_id: str, *, offset: int = 0, follow: bool = True, timestamps: bool = False
    ) -> AsyncIterator[LogChunk]:
        """The output of all the job's runs from ``offset`` on, in chunks up to 256 KiB.

        With ``follow`` it ends when the job has no run left going; without, at what is there now.
        ``timestamps`` puts an RFC 3339 UTC time and a space before each line, and before the rest
        of the one that it begins in.
        Raises RunNotFound (at the first item) for a job that never started here.
        """
        ...

    async def log_extent(self, job_id: str, *, since: datetime | None = None) -> LogExtent:
        """Which bytes of the job's output are kept; ``since``: of those that came then or later.

        Raises RunNotFound for a job that never started here.
        """
        ...

    async def nodes(self) -> Sequence[Node]:
        """Where runs can be, with all that they can have there (not what is free).

        It may change at any time; ``NodesChanged`` says so. An engine that places runs itself has
        one, which is what a single job can have. Raises NotReady while the engine is away: what it
        stands on cannot be reached, and begins no runs. ``NodesChanged`` says that too.
        """
        ...


# What an engine may lack. One that can do it has the method, and that is all that it takes.


@runtime_checkable
class Attaches(Protocol):
    """An engine whose runs can be attached to."""

    async def attach(self, job_id: str, *, stdin: bool, output: bool) -> Session:
        """Connect to the main process. Output begins at this moment: no replay. RunNotFound."""
        ...


@runtime_checkable
class Executes(Protocol):
    """An engine that starts further processes in a run."""

    async def exec(self, job_id: str, argv: Collection[str], *, tty: bool) -> Session:
        """Run another process inside. RunNotFound where the job is not running."""
        ...


@runtime_checkable
class BuildsImages(Protocol):
    """An engine on a daemon of this machine that can build images as well."""

    @property
    def build_daemon(self) -> str:
        """The daemon's socket; empty where it does not build, or was not found yet."""
        ...


@runtime_checkable
class Connects(Protocol):
    """An engine that reaches the ports of a run."""

    async def connect(self, job_id: str, port: int) -> Connection:
        """A TCP connection to the job's 127.0.0.1:port. RunNotFound, NotListening."""
        ...


@runtime_checkable
class Commits(Protocol):
    """An engine that makes images of runs."""

    async def commit(self, job_id: str, saving: Saving, told: Callable[[SaveStep], None]) -> None:
        """Push the files of a run, as they are now, as an image: later runs may begin from it.

        It takes the place of an image of that name when all of it is there, and not before. What
        was mounted or given to the run is not in it, so no secret is. ``told`` may be called by any
        thread. Whoever gives up leaves nothing half, and the run goes on.

        Raises RunNotFound where the job is not running, or ends meanwhile, EngineFault, and
        NotReady where it may be tried again.
        """
        ...


@runtime_checkable
class Measures(Protocol):
    """An engine that knows what a run uses."""

    async def usage(self, job_id: str) -> Usage:
        """What the run uses now. RunNotFound where the job is not running."""
        ...
