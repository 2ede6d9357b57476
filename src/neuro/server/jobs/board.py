"""Every active job in memory, what it holds, and who waits for it to change.

The board is what the scheduler and the reconciler work on; the database follows it in batches.
They work on the jobs of the engines that this server holds: those have a lane. Jobs of engines that
other servers hold are on the board as the database tells of them (``know``): they are counted, and
waited for, and nothing else is done with them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec.structs import replace

from neuro.domain.errors import NoSuchJob
from neuro.domain.jobs import JobStatus
from neuro.engines.base import Node
from neuro.server.access.people import person_of
from neuro.server.jobs.followed import EngineLoad, Followed
from neuro.server.jobs.lane import Allotment, Lane
from neuro.server.jobs.phases import Phase
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.scheduler import Waiting


class Watcher:
    """Somebody who waits for a job to change, and its newest record."""

    def __init__(self, record: JobRecord) -> None:
        self.newest = record
        self.wake = asyncio.Event()
        self.is_gone = False  # the job has no record any more


class Board:
    """All active jobs, by id."""

    def __init__(
        self,
        nodes: Mapping[str, Sequence[Node]],
        waits_for: Callable[[JobRecord, Board], str | None] = lambda record, board: None,
    ) -> None:
        """``nodes`` are those of the engines that this server holds from the beginning.

        ``waits_for`` says what a job of any other engine waits for.
        """
        self.lanes = {name: Lane(each) for name, each in nodes.items()}
        self._waits_for = waits_for
        self._records: dict[str, JobRecord] = {}
        self._followed = Followed()
        # Of each job that holds its resources, the lane that it has them of.
        self._lane_of: dict[str, Lane] = {}
        self._controls: set[str] = set()
        self._with_secrets: set[str] = set()
        # How many active jobs each person has; and under whom each job is counted.
        self._jobs_of: Counter[str] = Counter()
        self._counted: dict[str, str] = {}
        self._watchers: dict[str, list[Watcher]] = {}
        self._listeners: list[Callable[[JobRecord], None]] = []
        self._own_listeners: list[Callable[[JobRecord], None]] = []

    def __len__(self) -> int:
        return len(self._records) + len(self._followed)

    def __iter__(self) -> Iterator[JobRecord]:
        yield from self._records.values()
        yield from self._followed.values()

    @property
    def own(self) -> Collection[JobRecord]:
        """The jobs of engines that this server holds."""
        return self._records.values()

    @property
    def followed(self) -> Collection[JobRecord]:
        """The jobs of engines that other servers hold."""
        return self._followed.values()

    def load_of(self, engine: str) -> EngineLoad:
        """What an engine that another server holds has to do."""
        return self._followed.load(engine)

    def get(self, job_id: str) -> JobRecord | None:
        """An active job of an engine that this server holds: nobody knows it better."""
        return self._records.get(job_id)

    def is_known(self, job_id: str) -> bool:
        """Whether a job is active, as far as this server knows, or on its way to be."""
        return job_id in self._counted

    def is_own(self, job_id: str) -> bool:
        """Whether a job is this server's, or on its way to be."""
        return job_id in self._counted and job_id not in self._followed

    def watched(self) -> list[str]:
        """The ids of the jobs that somebody waits for."""
        return list(self._watchers)

    def placed(self) -> Iterator[JobRecord]:
        """The jobs that hold their resources: few, where those that wait may be very many."""
        on_board = map(self._records.get, self._lane_of)
        return (record for record in on_board if record is not None)

    def controls(self) -> Iterator[JobRecord]:
        """The control jobs."""
        on_board = map(self._records.get, self._controls)
        return (record for record in on_board if record is not None)

    def with_secrets(self) -> Iterator[JobRecord]:
        """The jobs that use secrets."""
        for job_id in self._with_secrets:
            record = self._records.get(job_id) or self._followed.get(job_id)
            if record is not None:
                yield record

    def jobs_of(self, person: str) -> int:
        """How many active jobs a person has, those on their way to the database included."""
        return self._jobs_of[person]

    def open(self, engine: str, nodes: Sequence[Node], *, delegated: bool = False) -> None:
        """Give an engine that this server holds from now on a lane of its own."""
        self.lanes[engine] = Lane(nodes, delegated=delegated)

    def close(self, engine: str) -> list[JobRecord]:
        """The reverse of ``open``: its jobs are another server's. Returns those on the board."""
        lane = self.lanes.pop(engine, None)
        gone = [record for record in self._records.values() if record.engine == engine]
        for record in gone:
            self._followed[record.id] = self._records.pop(record.id)
        for job_id in [job_id for job_id, held in self._lane_of.items() if held is lane]:
            del self._lane_of[job_id]
        return gone

    def add(self, record: JobRecord) -> None:
        """Put an active job on the board: waiting, or holding its resources if it is placed."""
        self._records[record.id] = record
        self._followed.pop(record.id, None)
        self._count(record)
        lane = self.lanes[record.engine]
        if record.placed:
            if record.id not in self._lane_of:
                lane.hold(record)
                self._lane_of[record.id] = lane
        elif record.specification.control:
            lane.control[record.id] = None
        else:
            lane.queue.add(waiting(record))

    def put(self, record: JobRecord) -> None:
        """Let a job that is on the board be what it has become."""
        if record.id in self._records:
            self._records[record.id] = record

    def know(self, record: JobRecord) -> None:
        """Let a job of an engine that another server holds be what the database says of it."""
        if record.id in self._records or self._followed.get(record.id) == record:
            return
        if record.is_active:
            self._followed[record.id] = record
            self._count(record)
        elif self._followed.pop(record.id, None) is not None:
            self._uncount(record)
        self._tell(record)

    def forget(self, job_id: str) -> None:
        """A job of another server has no record any more."""
        record = self._followed.pop(job_id, None)
        if record is not None:
            self._uncount(record)
        for watcher in self._watchers.get(job_id, ()):
            watcher.is_gone = True
            watcher.wake.set()

    def _count(self, record: JobRecord) -> None:
        if record.specification.control:
            self._controls.add(record.id)
        container = record.specification.container
        if container.secret_env or container.secret_volumes:
            self._with_secrets.add(record.id)
        if record.id not in self._counted:
            person = self._counted[record.id] = person_of(record.owner)
            self._jobs_of[person] += 1

    def _uncount(self, record: JobRecord) -> None:
        self._controls.discard(record.id)
        self._with_secrets.discard(record.id)
        person = self._counted.pop(record.id, None)
        if person is not None:
            self._jobs_of[person] -= 1
            if not self._jobs_of[person]:
                del self._jobs_of[person]

    def reserve(self, record: JobRecord) -> JobRecord:
        """Give a job that is not on the board yet its resources, if nobody is ahead of it.

        It gets its place among those that are counted. Returns what it is then.
        """
        self._count(record)
        lane = self.lanes.get(record.engine)
        amount = record.specification.amount
        if lane is None or record.specification.control or lane.queue:
            return record
        node = lane.find(amount)
        if node is None:
            return record
        self._lane_of[record.id] = lane
        place = lane.take(record, node)
        return replace(record, phase=Phase.STARTING, node=place.node, gpus=place.gpus)

    def release(self, record: JobRecord) -> None:
        """Take back what ``reserve`` gave: the job will not be on the board."""
        self._uncount(record)
        lane = self._lane_of.pop(record.id, None)
        if lane is not None:
            lane.give_back(record)

    def choose(self, engine: str) -> list[tuple[str, Allotment]]:
        """Take from a queue the jobs that start now, and give them their resources.

        Returns the id of each, and the place that it was given.
        """
        lane = self.lanes[engine]
        chosen = [(job_id, Allotment()) for job_id in lane.control]
        lane.control.clear()
        for job, node in lane.choose():
            lane.queue.remove(job)
            chosen.append((job.id, lane.take(self._records[job.id], node)))
        self._lane_of.update((job_id, lane) for job_id, _ in chosen)
        return chosen

    def remove(self, record: JobRecord) -> None:
        """Take a finished job off the board and free what it held."""
        if self._records.pop(record.id, None) is None:
            return
        self._uncount(record)
        held = self._lane_of.pop(record.id, None)
        if held is not None:
            held.give_back(record)
            return
        lane = self.lanes[record.engine]
        if record.id in lane.control:
            del lane.control[record.id]
        else:
            lane.queue.remove(waiting(record))

    def waits_for(self, record: JobRecord) -> str | None:
        """What a pending job waits for; None once it has its resources."""
        if record.status is not JobStatus.PENDING or record.id in self._lane_of:
            return None
        lane = self.lanes.get(record.engine)
        if lane is None:
            return self._waits_for(record, self)
        if record.specification.control:
            return None
        ahead = lane.queue.count_ahead(waiting(record))
        return lane.explain(record.specification.amount, ahead)

    def listen(self, listener: Callable[[JobRecord], None], *, own: bool = False) -> None:
        """Have ``listener`` called with every job that changes, at once; or only this server's."""
        (self._own_listeners if own else self._listeners).append(listener)

    def changed(self, record: JobRecord) -> None:
        """Wake everybody who waits for a change of this server's job, and tell the listeners."""
        self._tell(record)
        for listener in self._own_listeners:
            listener(record)

    def _tell(self, record: JobRecord) -> None:
        for watcher in self._watchers.get(record.id, ()):
            watcher.newest = record
            watcher.wake.set()
        for listener in self._listeners:
            listener(record)

    async def wait_until(self, record: JobRecord, holds: Callable[[JobRecord], bool]) -> JobRecord:
        """Return a job on the board once ``holds`` is true of it, or it is over.

        Raises NoSuchJob where another server has ended and removed it.
        """
        newest = self._records.get(record.id) or self._followed.get(record.id) or record
        watcher = Watcher(newest)
        self._watchers.setdefault(record.id, []).append(watcher)
        try:
            while not holds(watcher.newest) and watcher.newest.is_active:
                watcher.wake.clear()
                await watcher.wake.wait()
                if watcher.is_gone:
                    raise NoSuchJob(f"no such job {record.id}")
            return watcher.newest
        finally:
            self._watchers[record.id].remove(watcher)
            if not self._watchers[record.id]:
                del self._watchers[record.id]


def waiting(record: JobRecord) -> Waiting:
    """A record as the scheduler sees it."""
    return Waiting(
        urgency=-record.priority.rank,
        sequence=record.sequence,
        id=record.id,
        amount=record.specification.amount,
    )
