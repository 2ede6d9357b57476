"""Which pending jobs start now, and what the others wait for. Pure: values in, values out.

First in, first out within a priority. A job may pass one that waits only if it cannot delay it: in
every resource that it takes, what it leaves free still holds all that the waiting ones ahead of it
need. So a CPU job passes a job that waits for a GPU, while nothing ever starves. Of several nodes
that holds for each: a job that waits is kept room for wherever it could be.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

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
        ahead = self.count_ahead(job)
        if ahead < len(self._jobs) and self._jobs[ahead].id == job.id:
            amount = self._jobs.pop(ahead).amount
            self._jobs_of[amount] -= 1
            if not self._jobs_of[amount]:
                del self._jobs_of[amount], self._amounts[amount]

    def count_ahead(self, job: Waiting) -> int:
        """How many jobs are ahead of it."""
        if self._jobs and self._jobs[-1].id == job.id:
            return len(self._jobs) - 1  # It has just been submitted, as most that are asked for.
        return bisect_left(self._jobs, _turn(job), key=_turn)


def _turn(job: Waiting) -> tuple[int, int]:
    return (job.urgency, job.sequence)


class Room(msgspec.Struct, frozen=True, gc=False):
    """A node on which jobs may begin: all that it has, and what of it is free."""

    node: str
    whole: Amount
    free: Amount


class _Left:
    """What is left of a room during a look, and what of that is kept for jobs that wait.

    Plain numbers: where thousands wait for a GPU, sums of amounts would take most of a look.
    """

    __slots__ = ("cpu", "gpu", "kept_cpu", "kept_gpu", "kept_memory", "memory", "node", "whole")

    def __init__(self, room: Room) -> None:
        self.node, self.whole = room.node, room.whole
        self.cpu, self.memory, self.gpu = room.free.cpu, room.free.memory, room.free.gpu
        self.kept_cpu, self.kept_memory, self.kept_gpu = 0.0, 0, 0

    @property
    def is_full(self) -> bool:
        """Whether nothing more begins here: every job takes some CPU and some memory."""
        return self.kept_cpu >= self.cpu or self.kept_memory >= self.memory

    def holds(self, amount: Amount) -> bool:
        """Whether a job begins here: it takes nothing that those ahead of it need."""
        cpu, memory, gpu = amount.cpu, amount.memory, amount.gpu
        # Only the resources that a job takes itself can be missed by those ahead of it.
        return (
            (cpu <= 0 or cpu + self.kept_cpu <= self.cpu + 1e-3)
            and (memory <= 0 or memory + self.kept_memory <= self.memory)
            and (gpu <= 0 or gpu + self.kept_gpu <= self.gpu)
        )

    def rest(self, amount: Amount) -> tuple[int, float, int, str]:
        """What a job would leave: the tightest place is the best, and spares GPUs first."""
        return self.gpu - amount.gpu, self.cpu - amount.cpu, self.memory - amount.memory, self.node

    def give(self, amount: Amount) -> None:
        self.cpu -= amount.cpu
        self.memory -= amount.memory
        self.gpu -= amount.gpu


def choose(
    waiting: Iterable[Waiting], rooms: Iterable[Room], kinds: float = math.inf
) -> list[tuple[Waiting, str]]:
    """Which of the jobs, given in the order of their turns, start now, and on which node.

    The walk ends once those ahead have claimed all of the CPU or memory of every node: a long queue
    costs no more than what can start. It also ends once one job of each of the ``kinds`` has to
    wait, as those behind it that ask for the same amount wait too. The amounts of one kind are one
    object then, as ``Queue`` has them. A job that no node could ever hold keeps nobody waiting.
    """
    chosen: list[tuple[Waiting, str]] = []
    left = [one for one in map(_Left, rooms) if not one.is_full]
    # What has to wait, by the identity of the amount, which takes less than what it is: the amount,
    # and the nodes that could ever hold it.
    refused: dict[int, tuple[Amount, list[_Left]]] = {}
    for job in waiting:
        if not left:
            break
        amount = job.amount
        if (known := refused.get(id(amount))) is not None:
            able = known[1]
        elif found := [one for one in left if one.holds(amount)]:
            best = min(found, key=lambda one: one.rest(amount)) if len(found) > 1 else found[0]
            chosen.append((job, best.node))
            best.give(amount)
            if best.is_full:
                left.remove(best)
            continue
        else:
            able = [one for one in left if amount.fits(one.whole)]
            if kinds <= FEW_KINDS:
                refused[id(amount)] = amount, able
                if len(refused) == kinds:
                    break
        is_any_full = False
        for one in able:
            one.kept_cpu += amount.cpu
            one.kept_memory += amount.memory
            one.kept_gpu += amount.gpu
            if one.kept_cpu >= one.cpu or one.kept_memory >= one.memory:
                is_any_full = True
        if is_any_full:
            left = [one for one in left if not one.is_full]
    return chosen


def place(amount: Amount, rooms: Iterable[Room]) -> str | None:
    """The node on which a job that asks for this starts now, if there is one."""
    chosen = choose((Waiting(urgency=0, sequence=0, id="", amount=amount),), rooms)
    return chosen[0][1] if chosen else None


def explain_among(amount: Amount, rooms: Sequence[Room], ahead: int) -> str:
    """``explain`` for the nodes of an engine: of the one that lacks least of it."""
    able = [room for room in rooms if amount.fits(room.whole)]
    if not able:
        asked = [counted(amount.cpu, "CPU"), f"{amount.memory / GIB:.1f} GiB memory"]
        if amount.gpu:
            asked.append(counted(amount.gpu, "GPU"))
        needs = f"{', '.join(asked[:-1])} and {asked[-1]}"
        return f"Waits for a node with {needs}: none is that large now"
    nearest = min(able, key=lambda room: (_missing(amount, room.free), room.node))
    where = "" if len(able) == 1 else " on one node"
    return explain(amount, nearest.free, ahead, where)


def _missing(amount: Amount, free: Amount) -> tuple[int, float, int]:
    lack = amount - free
    return max(0, lack.gpu), max(0.0, lack.cpu), max(0, lack.memory)


def explain(amount: Amount, free: Amount, ahead: int, where: str = "") -> str:
    """What a waiting job waits for, as a sentence that a person can act on."""
    needs = []
    if amount.cpu > free.cpu + 1e-3:
        needs.append(f"{counted(amount.cpu, 'CPU')} ({max(0.0, free.cpu):g} free)")
    if amount.memory > free.memory:
        needs.append(f"{amount.memory / GIB:.1f} GiB memory ({free.memory / GIB:.1f} free)")
    if amount.gpu > free.gpu:
        needs.append(f"{counted(amount.gpu, 'GPU')} ({free.gpu} free)")
    what = "Waits for " + (" and ".join(needs) + where if needs else "its turn")
    return what + (f"; {ahead} ahead" if ahead else "")
