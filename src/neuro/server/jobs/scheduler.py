"""Which pending jobs start now, and what the others wait for. Pure: values in, values out.

First in, first out within a priority. A job may pass one that waits only if it cannot delay it: in
every resource that it takes, what it leaves free still holds all that the waiting ones ahead of it
need. So a CPU job passes a job that waits for a GPU, while nothing ever starves. Of several nodes
that holds for each: a job that waits is kept room for wherever it could be.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

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

    def rest(self, amount: Amount) -> tuple[int, float, int, str]:
        """What a job would leave: the tightest place is the best, and spares GPUs first."""
        return self.gpu - amount.gpu, self.cpu - amount.cpu, self.memory - amount.memory, self.node


def choose(waiting: Iterable[Waiting], rooms: Iterable[Room]) -> list[tuple[Waiting, str]]:
    """Which of the jobs, given in the order of their turns, start now, and on which node.

    The walk ends once those ahead have claimed all of the CPU or memory of every node: a long queue
    costs no more than what can start. A job that no node could ever hold keeps nobody waiting.
    """
    chosen: list[tuple[Waiting, str]] = []
    left = [one for one in map(_Left, rooms) if not one.is_full]
    # What was asked for last and does not start: nor does the same again, as less is left of all.
    last: tuple[float, int, int] | None = None
    able: list[_Left] = []  # where that could ever be
    for job in waiting:
        if not left:
            break
        amount = job.amount
        asked = cpu, memory, gpu = amount.cpu, amount.memory, amount.gpu
        if asked != last:
            best: _Left | None = None
            for one in left:
                # Only the resources that a job takes itself can be missed by those ahead of it.
                if (
                    (cpu <= 0 or cpu + one.kept_cpu <= one.cpu + 1e-3)
                    and (memory <= 0 or memory + one.kept_memory <= one.memory)
                    and (gpu <= 0 or gpu + one.kept_gpu <= one.gpu)
                    and (best is None or one.rest(amount) < best.rest(amount))
                ):
                    best = one
            if best is not None:
                chosen.append((job, best.node))
                best.cpu -= cpu
                best.memory -= memory
                best.gpu -= gpu
                if best.is_full:
                    left.remove(best)
                    last = None
                continue
            last, able = asked, [one for one in left if amount.fits(one.whole)]
        for one in able:
            one.kept_cpu += cpu
            one.kept_memory += memory
            one.kept_gpu += gpu
            if one.kept_cpu >= one.cpu or one.kept_memory >= one.memory:
                last = None
        if last is None:
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
