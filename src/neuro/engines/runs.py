"""What an engine is asked for, and what it tells: the values of the Engine protocol (``base``)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

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

    It belongs to the run's user and cannot be written to; ``mode`` is who may read it. It lies in
    memory, and no engine writes its content to a disk.
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


class Saving(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image of a run goes to, and what the run began from.

    ``image`` is a reference with its registry, ``push`` allows to push it there. ``base`` and
    ``pull`` are as the run was given them: its ``image``, and what allows to pull that now.
    """

    image: str
    push: PullCredentials
    base: str
    pull: PullCredentials | None = None


class SaveStep(msgspec.Struct, frozen=True):
    """How far the image of a run is. Its files were read, and ``share`` of it is pushed, 0 to 1.

    ``changed`` is how many files changed while they were read.
    """

    share: float
    changed: int = 0


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job. A job that is restarted has runs 0, 1, 2 …; its log goes on across them.

    It names things; where they are is the engine's to know.

    ``entrypoint`` takes the place of the image's own, and of its command; None leaves the image its
    entrypoint. ``argv`` are the words after it, none for the image's own command: see
    ``command_line``. ``memory`` is bytes, ``cpu`` is cores. ``node`` is where it runs, and ``gpus``
    are those of the node that it sees: names that the engine gave them, none where it places runs
    itself. ``disk`` is bytes of private files (not those on volumes), 0 for no limit. ``pull`` is
    for engines that pull ``image``; where that is a copy in a mirror, ``mirror_of`` is the registry
    that it comes from. Runs with the same ``neighbours``, if it is not empty, reach
    each other's ports, and know this one by its ``names`` where they have networks of their own; no
    others do. ``person`` is who has to share what there are few of, whichever of their accounts
    the run is of; empty where that is who ``neighbours`` says.

    ``secret_env`` are variables beside those of ``env`` whose values only the run's own processes
    may have: an engine writes them to no disk, and shows them nobody.

    ``stdin`` says that somebody will send input through ``attach``: to a pipe, or with ``tty`` to
    the keyboard of a terminal. None means to a terminal only. Without it the input is empty, and
    that of a job's later runs is: what was sent to the first is not there any more.

    ``control`` runs take nothing of the capacity, and the engine bounds the memory of all of them
    together.

    ``nesting`` lets the command make fences within its own, to build an image: it must be the
    platform's program, never a user's, and nobody can ``exec`` beside it. ``build_cache`` names a
    folder that the engine keeps from build to build and mounts at ``/cache``, one for each owner:
    letters, digits, ``.``, ``_`` and ``-``. ``build_daemon`` is the socket of a daemon of this
    machine that builds, which such a command reaches: it has all rights over the machine. All three
    are for engines that build images.
    """

    job_id: str
    run: int = 0
    image: str
    entrypoint: tuple[str, ...] | None = None
    argv: tuple[str, ...] = ()
    env: dict[str, str] = {}
    secret_env: dict[str, str] = {}
    working_dir: str | None = None
    hostname: str = "job"
    volumes: tuple[Volume, ...] = ()
    files: tuple[File, ...] = ()
    disks: tuple[Disk, ...] = ()
    pull: PullCredentials | None = None
    mirror_of: str = ""
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
    person: str = ""
    names: tuple[str, ...] = ()
    control: bool = False
    nesting: bool = False
    build_cache: str = ""
    build_daemon: str = ""

    def command_line(self, entrypoint: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
        """The words to execute, for an image with this entrypoint and command of its own.

        Raises ValueError, with a sentence, where there are none.
        """
        own = entrypoint if self.entrypoint is None else self.entrypoint
        # An image's command is made for its entrypoint, so it goes with that, as in Docker.
        words = self.argv or (command if self.entrypoint is None else ())
        if not (*own, *words):
            raise ValueError("the image has no command of its own: give one")
        return (*own, *words)


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
    """The run's command is running since ``at`` (UTC, aware).

    ``where`` says on what, if its owner is to know.
    """

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
    IMAGE_PULL = "image_pull"  # as that: its image cannot be had; ``message`` is the registry's
    INVALID_IMAGE = "invalid_image"  # as that: no image can have this name
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
