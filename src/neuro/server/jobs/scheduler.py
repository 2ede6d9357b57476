"""Which pending jobs start now, and what the others wait for. Pure: values in, values out.

First in, first out within a priority. A job may pass one that waits only if it cannot delay it: in
every resource that it takes, what it leaves free still holds all that the waiting ones ahead of it
need. So a CPU job passes a job that waits for a GPU, while nothing ever starves.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from neuro.domain.resources import GIB, Amount, counted

# More than presets make: to remember which of them wait would take longer than to look.
FEW_KINDS = 1000


class Waiting(msgspec.Struct, frozen=True, order=True, gc=False):
    """A pending job as the scheduler sees it, ordered by when its turn comes."""

    urgency: int  # the priority's rank, negated: the highest comes first
    sequence: int
    id: str
    amount: Amount


class Queue:
    """The pending jobs of one engine in the order of their turns.

    Those that ask for the same amount have the same object for it.
    """

    def __init__(self) -> None:
        self._jobs: list[Waiting] = []
        self._amounts: dict[Amount, Amount] = {}
        self._jobs_of: Counter[Amount] = Counter()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._jobs)

    @property
    def kinds(self) -> int:
        """How many different amounts there are: mostly as many as presets."""
        return len(self._amounts)

    def add(self, job: Waiting) -> None:
        amount = self._amounts.setdefault(job.amount, job.amount)
        self._jobs_of[amount] += 1
        if amount is not job.amount:
            job = replace(job, amount=amount)
        if not self._jobs or _turn(self._jobs[-1]) < _turn(job):
            self._jobs.append(job)
        else:
            insort(self._jobs, job, key=_turn)

    def remove(self, job: Waiting) -> None:
        """Take a job out; nothing if it is not waiting."""
        place = self.place(job)
        if place < len(self._jobs) and self._jobs[place].id == job.id:
            amount = self._jobs.pop(place).amount
            self._jobs_of[amount] -= 1
            if not self._jobs_of[amount]:
                del self._jobs_of[amount], self._amounts[amount]

    def place(self, job: Waiting) -> int:
        """How many jobs are ahead of it."""
        if self._jobs and self._jobs[-1].id == job.id:
            return len(self._jobs) - 1  # It has just been submitted, as most that are asked for.
        return bisect_left(self._jobs, _turn(job), key=_turn)


def _turn(job: Waiting) -> tuple[int, int]:
    return (job.urgency, job.sequence)


def choose(waiting: Iterable[Waiting], free: Amount, kinds: float = math.inf) -> list[Waiting]:
    """Which of the jobs, given in the order of their turns, start with what is ``free`` now.

    Every job takes some CPU and some memory, so the walk ends once those ahead have claimed all of
    either: a long queue costs no more than what can start. It also ends once one job of each of the
    ``kinds`` has to wait, as those behind it that ask for the same amount wait too. The amounts of
    one kind are one object then, as ``Queue`` has them.
    """
    chosen: list[Waiting] = []
    refused: dict[int, Amount] = {}  # by their identity, which takes less than what they are
    # Plain numbers: where thousands wait for a GPU, sums of amounts would take most of a look.
    free_cpu, free_memory, free_gpu = free.cpu, free.memory, free.gpu
    reserved_cpu, reserved_memory, reserved_gpu = 0.0, 0, 0
    for job in waiting:
        amount = job.amount
        cpu, memory, gpu = amount.cpu, amount.memory, amount.gpu
        waits = id(amount) in refused
        # Only the resources that a job takes itself can be missed by those ahead of it.
        if (
            not waits
            and (cpu <= 0 or cpu + reserved_cpu <= free_cpu + 1e-3)
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
            if not waits and kinds <= FEW_KINDS:
                refused[id(amount)] = amount
                if len(refused) == kinds:
                    break
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
