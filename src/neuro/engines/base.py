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
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from neuro.domain.resources import Amount
from neuro.domain.uris import ResourceURI


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A folder or file of the storage (``source``) at an absolute ``target`` inside the job."""

    source: ResourceURI
    target: str
    read_only: bool = True


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the run's own at an absolute ``target``, such as a secret or a configuration.

    It belongs to the run's user and cannot be written to; ``mode`` is who may read it.
    """

    target: str
    content: bytes
    mode: int = 0o400


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """A disk that the engine knows by ``name``, at an absolute ``target`` inside the job."""

    name: str
    target: str
    read_only: bool = False


class PullCredentials(msgspec.Struct, frozen=True):
    """How an image is pulled from a registry that asks who wants it."""

    user: str
    password: str


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job. A job that is restarted has runs 0, 1, 2 …; its log goes on across them.

    It names things; where they are is the engine's to know.

    ``argv`` empty means the image's own default command. ``memory`` is bytes, ``cpu`` is cores.
    ``node`` is where it runs, and ``gpus`` are those of the node that it sees: names that the
    engine gave them, none where it places runs itself. ``disk`` is bytes of private
    files (not those on volumes), 0 for no limit. ``pull`` is for engines that pull ``image``. Runs
    with the same ``neighbours``, if it is not empty, reach each other's ports, and know this one by
    its ``names`` where they have networks of their own; no others do.

    ``stdin`` says that somebody will send input through ``attach``: to a pipe, or with ``tty`` to
    the keyboard of a terminal. None means to a terminal only. Without it the input is empty, and
    that of a job's later runs is: what was sent to the first is not there any more.

    ``control`` runs take nothing of the capacity, and the engine bounds the memory of all of them
    together.
    """

    job_id: str
    run: int = 0
    image: str
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    working_dir: str | None = None
    hostname: str = "job"
    volumes: tuple[Volume, ...] = ()
    files: tuple[File, ...] = ()
    disks: tuple[Disk, ...] = ()
    pull: PullCredentials | None = None
    tty: bool = False
    stdin: bool | None = None
    cpu: float
    memory: int
    node: str = ""
    gpus: tuple[str, ...] = ()
    shm: bool = True
    privileged: bool = False
    disk: int = 0
    neighbours: str = ""
    names: tuple[str, ...] = ()
    control: bool = False


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """Where runs are: what they may take there together, and its GPUs by their names.

    ``memory`` is bytes, ``cpu`` is cores. Names stay what they are as long as runs may have them,
    and have no commas. A node that is not ``open`` drains: what runs there goes on, and nothing
    more begins there.
    """

    name: str
    cpu: float
    memory: int
    gpus: tuple[str, ...] = ()
    open: bool = True

    @property
    def amount(self) -> Amount:
        return Amount(cpu=self.cpu, memory=self.memory, gpu=len(self.gpus))


class RunRef(msgspec.Struct, frozen=True, order=True):
    """Which run of which job."""

    job_id: str
    run: int = 0


class WaitReason(StrEnum):
    """Why a run that the engine has does not begin yet; people read it as the job's reason."""

    PULLING = "Pulling"  # its image is fetched
    QUEUED = "Queued"  # others are before it in a queue of the engine's own
    NO_NODE = "NoNode"  # no node has what it needs, now or at all


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """What the run waits for at ``at``, before it starts.

    ``description`` is a sentence for its owner; ``progress`` is from 0 to 1, where it is known.
    """

    ref: RunRef
    at: datetime
    reason: WaitReason
    description: str | None = None
    progress: float | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The run's command is running since ``at`` (UTC, aware); ``where`` names the node, if any."""

    ref: RunRef
    at: datetime
    where: str | None = None


class ExitCause(StrEnum):
    """Why a run ended, as far as the engine itself can know."""

    COMPLETED = "completed"  # exit code 0
    ERROR = "error"  # exit code other than 0, or a signal (128 + number)
    OUT_OF_MEMORY = "out_of_memory"  # the memory limit
    DISK_LIMIT = "disk_limit"  # the limit on private files; ``message`` has the numbers
    CANNOT_START = "cannot_start"  # the command was never run; ``message`` says why
    NOT_READY = "not_ready"  # as that, by the engine's fault: the run may be started again
    VOLUME_NOT_READY = "volume_not_ready"  # as that, by a volume of its own: full, or it fails
    LOST = "lost"  # the run's supervision vanished (host reboot, kill -9 of the supervisor)


class Exited(msgspec.Struct, frozen=True, kw_only=True):
    """The run is over; every process of it is gone and all its output can be read.

    ``output_bytes`` is the size of the job's whole log as it is kept now; ``peak_memory`` is the
    most that the run had at once, in bytes, where the engine knows.
    """

    ref: RunRef
    at: datetime
    exit_code: int | None
    cause: ExitCause
    message: str | None = None
    output_bytes: int = 0
    peak_memory: int | None = None


class NodesChanged(msgspec.Struct, frozen=True):
    """What the engine offers is something else now: ``nodes`` has it."""


RunEvent = Waiting | Started | Exited
Event = RunEvent | NodesChanged


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is: ``started``, ``exited`` or both; neither if the run is about to start.

    ``waiting`` is what it waits for until then. ``trouble`` is why nothing is known of the run yet,
    by the engine's fault: events follow, and tell a start also of a run that had begun before.
    """

    started: Started | None = None
    exited: Exited | None = None
    waiting: Waiting | None = None
    trouble: str | None = None


class LogChunk(msgspec.Struct, frozen=True):
    """A piece of a job's output: ``data`` is its bytes from ``start`` up to ``end``, with times
    before the lines where these were asked for.

    Offsets count the whole output as it was printed. Where one begins behind the end of that before
    it, what is between was dropped.
    """

    start: int
    end: int
    data: bytes


class LogExtent(msgspec.Struct, frozen=True):
    """Which bytes of a job's output there are: from ``first`` up to ``end``."""

    first: int
    end: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a run uses at ``at``. ``cpu`` in cores since the previous sample, memory in bytes."""

    at: datetime
    cpu: float
    memory: int
    gpu_utilization: int | None = None
    gpu_memory: int | None = None


class Channel:
    """Numbers of a session's byte streams; they are the wire's own (attach and exec)."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2


class InputState(msgspec.Struct, frozen=True):
    """How many bytes the process's input has taken in all; ``closed``: it takes no more."""

    taken: int = 0
    closed: bool = False


class Session(Protocol):
    """A live connection to a run's main process (``attach``) or to a process of its own (``exec``).

    Closing a session of ``exec`` ends its process; closing one of ``attach`` only detaches.
    """

    async def read(self) -> tuple[int, bytes] | None:
        """The next (channel, bytes), or None when the other side is over.

        An item of ``Channel.STDIN`` is not output: the session's ``input`` has changed.
        """
        ...

    @property
    def input(self) -> InputState:
        """How far the input has come, as of the last ``read``."""
        ...

    async def write(self, data: bytes) -> None:
        """Feed stdin; waits while the process does not read. Ignored after its end."""
        ...

    async def write_eof(self) -> None:
        """Close stdin (of a terminal: send its end-of-file character)."""
        ...

    async def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in columns and rows; nothing without a terminal."""
        ...

    async def wait(self) -> int | None:
        """The exit code once it is over; None where the run itself vanished."""
        ...

    async def close(self) -> None: ...


class Connection(Protocol):
    """One TCP connection into a run."""

    async def read(self, limit: int = 1 << 16) -> bytes:
        """Some bytes, or b"" at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def write_eof(self) -> None: ...

    async def close(self) -> None: ...


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

        Raises EngineFault where this machine cannot run jobs, saying what is missing.
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
        one, which is what a single job can have.
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
class Connects(Protocol):
    """An engine that reaches the ports of a run."""

    async def connect(self, job_id: str, port: int) -> Connection:
        """A TCP connection to the job's 127.0.0.1:port. RunNotFound, NotListening."""
        ...


@runtime_checkable
class Commits(Protocol):
    """An engine that makes images of runs."""

    async def commit(self, job_id: str, image: str) -> None:
        """Keep the files of a run, as they are now, under the name of an image: later runs may
        begin from it. It takes the place of an image of that name.

        What was mounted or given to the run is not in it, so no secret is. RunNotFound where the
        job is not running.
        """
        ...


@runtime_checkable
class Measures(Protocol):
    """An engine that knows what a run uses."""

    async def usage(self, job_id: str) -> Usage:
        """What the run uses now. RunNotFound where the job is not running."""
        ...
