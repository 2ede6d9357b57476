"""Which pending jobs start now, and what the others wait for. Pure: values in, values out.

First in, first out within a priority. A job may pass one that waits only if it cannot delay it: in
every resource that it takes, what it leaves free still holds all that the waiting ones ahead of it
need. So a CPU job passes a job that waits for a GPU, while nothing ever starves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import msgspec

from neuro.domain.resources import GIB, NOTHING, Amount, counted


class Waiting(msgspec.Struct, frozen=True, order=True):
    """A pending job as the scheduler sees it, ordered by when its turn comes."""

    urgency: int  # the priority's rank, negated: the highest comes first
    sequence: int
    id: str
    amount: Amount


class Queue:
    """The pending jobs of one engine in the order of their turns."""

    def __init__(self) -> None:
        self._jobs: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._jobs)

    def add(self, job: Waiting) -> None:
        insort(self._jobs, job, key=_turn)

    def remove(self, job: Waiting) -> None:
        """Take a job out; nothing if it is not waiting."""
        place = self.place(job)
        if place < len(self._jobs) and self._jobs[place].id == job.id:
            del self._jobs[place]

    def place(self, job: Waiting) -> int:
        """How many jobs are ahead of it."""
        return bisect_left(self._jobs, _turn(job), key=_turn)


def _turn(job: Waiting) -> tuple[int, int]:
    return (job.urgency, job.sequence)


def choose(waiting: Iterable[Waiting], free: Amount) -> list[Waiting]:
    """Which of the jobs, given in the order of their turns, start with what is ``free`` now.

    Every job takes some CPU and some memory, so the walk ends once those ahead have claimed all of
    either: a long queue costs no more than what can start.
    """
    chosen: list[Waiting] = []
    reserved = NOTHING
    for job in waiting:
        if job.amount.fits(free) and not _delays(job.amount, free, reserved):
            chosen.append(job)
            free -= job.amount
        else:
            reserved += job.amount
        if reserved.cpu >= free.cpu or reserved.memory >= free.memory:
            break
    return chosen


def _delays(amount: Amount, free: Amount, reserved: Amount) -> bool:
    # Only the resources that this job takes itself can be missed by those ahead of it.
    left = free - amount
    return (
        (amount.cpu > 0 and left.cpu + 1e-3 < reserved.cpu)
        or (amount.memory > 0 and left.memory < reserved.memory)
        or (amount.gpu > 0 and left.gpu < reserved.gpu)
    )


def explain(amount: Amount, free: Amount, ahead: int) -> str:
    """What a waiting job waits for, as a sentence that a person can act on."""
    needs = []
    if amount.cpu > free.cpu + 1e-3:
        needs.append(f"{counted(amount.cpu, 'CPU')} ({max(0.0, free.cpu):g} free)")
    if amount.memory > free.memory:
        needs.append(f"{amount.memory / GIB:.1f} GiB memory ({free.memory / GIB:.1f} free)")
    if amount.gpu > free.gpu:
        needs.append(f"{counted(amount.gpu, 'GPU')} ({free.gpu} free)")
    what = "Waits for " + (" and ".join(needs) if needs else "its turn")
    return what + (f"; {ahead} ahead" if ahead else "")
