"""Which pending jobs start now, and what the others wait for. Pure: values in, values out.

First in, first out within a priority. A job may pass one that waits only if it cannot delay it: in
every resource that it takes, what it leaves free still holds all that the waiting ones ahead of it
need. So a CPU job passes a job that waits for a GPU, while nothing ever starves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

import msgspec

from neuro.domain.resources import GIB, Amount, counted


class Waiting(msgspec.Struct, frozen=True, order=True, gc=False):
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
        if not self._jobs or _turn(self._jobs[-1]) < _turn(job):
            self._jobs.append(job)
        else:
            insort(self._jobs, job, key=_turn)

    def remove(self, job: Waiting) -> None:
        """Take a job out; nothing if it is not waiting."""
        place = self.place(job)
        if place < len(self._jobs) and self._jobs[place].id == job.id:
            del self._jobs[place]

    def place(self, job: Waiting) -> int:
        """How many jobs are ahead of it."""
        if self._jobs and self._jobs[-1].id == job.id:
            return len(self._jobs) - 1  # It has just been submitted, as most that are asked for.
        return bisect_left(self._jobs, _turn(job), key=_turn)


def _turn(job: Waiting) -> tuple[int, int]:
    return (job.urgency, job.sequence)


def choose(waiting: Iterable[Waiting], free: Amount) -> list[Waiting]:
    """Which of the jobs, given in the order of their turns, start with what is ``free`` now.

    Every job takes some CPU and some memory, so the walk ends once those ahead have claimed all of
    either: a long queue costs no more than what can start.
    """
    chosen: list[Waiting] = []
    # Plain numbers: where thousands wait for a GPU, sums of amounts would take most of a look.
    free_cpu, free_memory, free_gpu = free.cpu, free.memory, free.gpu
    reserved_cpu, reserved_memory, reserved_gpu = 0.0, 0, 0
    for job in waiting:
        amount = job.amount
        cpu, memory, gpu = amount.cpu, amount.memory, amount.gpu
        # Only the resources that a job takes itself can be missed by those ahead of it.
        if (
            (cpu <= 0 or cpu + reserved_cpu <= free_cpu + 1e-3)
            and (memory <= 0 or memory + reserved_memory <= free_memory)
            and (gpu <= 0 or gpu + reserved_gpu <= free_gpu)
        ):
            chosen.append(job)
            free_cpu -= cpu
            free_memory -= memory
            free_gpu -= gpu
        else:
            reserved_cpu += cpu
            reserved_memory += memory
            reserved_gpu += gpu
        if reserved_cpu >= free_cpu or reserved_memory >= free_memory:
            break
    return chosen


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
