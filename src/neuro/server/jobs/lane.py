"""One engine's share of the board: its nodes, what is taken of them, and who waits for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from neuro.domain.resources import NOTHING, Amount
from neuro.engines.base import Node
from neuro.server.jobs.record import JobRecord
from neuro.server.jobs.scheduler import Queue, Room, Waiting, choose, explain_among, place

_NO_ROOM = "Its node takes no more runs, and no other node has room for it"
_UNKNOWN_GPUS = "Any of the free GPUs may be in use: jobs of an earlier version did not say theirs"


class Allotment(NamedTuple):
    """Where the runs of a job are, and which GPUs they see there."""

    node: str = ""
    gpus: tuple[str, ...] = ()


class Lane:
    """What jobs hold of an engine's nodes, and the queue for them.

    Of an engine that ``delegated`` placing to itself nothing is ever taken: it is handed each job
    at once, and says what that waits for. Nodes come and go: what a job has been given, it holds
    until it gives it back, wherever that is.
    """

    def __init__(self, nodes: Sequence[Node], *, delegated: bool = False) -> None:
        self.delegated = delegated
        # Why it begins no jobs at all now, as a sentence: its engine cannot be reached.
        self.away: str | None = None
        self.taken = NOTHING
        self.queue = Queue()
        # Control jobs wait only for the next look at the queues.
        self.control: dict[str, None] = {}  # a dict, for its order
        self._places: dict[str, Allotment] = {}
        self._taken_at: dict[str, Amount] = {}
        self._gpus_at: dict[str, Counter[str]] = {}
        # Jobs that run with GPUs that an earlier version did not write down: any may be theirs.
        self._unknown: set[str] = set()
        self._rooms: list[Room] | None = None
        # The most that it had at any time: what might come back is worth waiting for.
        self.most = NOTHING
        self.offer(nodes)

    def offer(self, nodes: Sequence[Node]) -> None:
        """Have these nodes from now on."""
        self.nodes = {node.name: node for node in nodes}
        self.capacity = sum((node.amount for node in nodes), NOTHING)
        self.most = Amount(
            cpu=max(self.most.cpu, self.capacity.cpu),
            memory=max(self.most.memory, self.capacity.memory),
            gpu=max(self.most.gpu, self.capacity.gpu),
        )
        self._rooms = None

    @property
    def rooms(self) -> list[Room]:
        """The nodes on which jobs may begin."""
        if self.away is not None:
            return []
        if self._rooms is None:
            self._rooms = [
                Room(node.name, node.amount, self._free_at(node))
                for node in self.nodes.values()
                if node.open
            ]
        return self._rooms

    @property
    def free(self) -> Amount:
        """What is free on all of them together."""
        return sum((room.free for room in self.rooms), NOTHING)

    def _free_at(self, node: Node) -> Amount:
        left = node.amount - self._taken_at.get(node.name, NOTHING)
        gpus = 0 if self._unknown else len(self._free_gpus(node))
        return Amount(cpu=left.cpu, memory=left.memory, gpu=gpus)

    def _free_gpus(self, node: Node) -> list[str]:
        held = self._gpus_at.get(node.name, ())
        return [gpu for gpu in node.gpus if gpu not in held]

    def find(self, amount: Amount) -> str | None:
        """The node where a job that asks for this could begin now."""
        if self.delegated:
            return "" if self.away is None else None
        return place(amount, self.rooms)

    def choose(self) -> list[tuple[Waiting, str]]:
        """The jobs of the queue that begin now, and where."""
        if self.away is not None:
            return []
        if self.delegated:
            return [(job, "") for job in self.queue]
        return choose(self.queue, self.rooms, self.queue.kinds)

    def explain(self, amount: Amount, ahead: int) -> str:
        """What a job in the queue waits for."""
        return self.away or explain_among(amount, self.rooms, ahead)

    def take(self, record: JobRecord, node: str) -> Allotment:
        """Give a job what it asked for, of a node that has it."""
        if self._is_free_of_charge(record):
            return Allotment()
        gpus = self._free_gpus(self.nodes[node])[: record.specification.amount.gpu]
        given = Allotment(node, tuple(gpus))
        self._hold(record, given)
        return given

    def hold(self, record: JobRecord) -> None:
        """Let an adopted job keep what it has, before anybody else is given anything."""
        if self._is_free_of_charge(record):
            return
        if record.specification.amount.gpu and not record.gpus:
            self._unknown.add(record.id)
        # Until nodes were written down, each engine had one.
        node = record.node or next(iter(self.nodes), "")
        self._hold(record, Allotment(node, record.gpus or ()))

    def place_for(self, record: JobRecord) -> Allotment | str:
        """Where the next run of a job is: at the place that it holds, or else at a free one.

        A sentence where it has to wait: its node drains or is gone, or nobody knows which GPUs are
        free, and there is no other place.
        """
        if self._is_free_of_charge(record):
            return Allotment(record.node, record.gpus or ())
        amount, held = record.specification.amount, self._places[record.id]
        if self._can_stay(held, amount):
            return held
        if amount.gpu and self._unknown:
            return _UNKNOWN_GPUS
        self._let_go(record)
        node = self.find(amount)
        if node is not None:
            return self.take(record, node)
        self._hold(record, held)
        return _NO_ROOM

    def _can_stay(self, held: Allotment, amount: Amount) -> bool:
        node = self.nodes.get(held.node)
        if node is None or not node.open or len(held.gpus) != amount.gpu:
            return False
        return set(held.gpus) <= set(node.gpus)

    def run_is_over(self, record: JobRecord) -> bool:
        """A run of a job is over, the job may go on: true if nobody knew which GPUs it saw."""
        if record.id not in self._unknown:
            return False
        self._unknown.remove(record.id)
        self._rooms = None
        return True

    def give_back(self, record: JobRecord) -> None:
        """The reverse of ``take`` and ``hold``."""
        if record.id in self._places:
            self._let_go(record)
        self._unknown.discard(record.id)

    def _hold(self, record: JobRecord, place: Allotment) -> None:
        amount = record.specification.amount
        self._places[record.id] = place
        self.taken += amount
        self._taken_at[place.node] = self._taken_at.get(place.node, NOTHING) + amount
        if place.gpus:
            self._gpus_at.setdefault(place.node, Counter()).update(place.gpus)
        self._rooms = None

    def _let_go(self, record: JobRecord) -> None:
        amount, place = record.specification.amount, self._places.pop(record.id)
        self.taken -= amount
        self._taken_at[place.node] -= amount
        if place.gpus:
            self._gpus_at[place.node] -= Counter(place.gpus)  # which drops those that are free
        self._rooms = None

    def _is_free_of_charge(self, record: JobRecord) -> bool:
        return record.specification.control or self.delegated
