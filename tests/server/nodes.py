"""Nodes that tests place jobs on."""

from __future__ import annotations

from neuro.domain.resources import GIB, Amount
from neuro.engines.base import Node
from neuro.server.jobs.scheduler import Room


def node(name: str, cpu: float = 4, gigabytes: int = 4, *gpus: str, open: bool = True) -> Node:
    return Node(name=name, cpu=cpu, memory=gigabytes * GIB, gpus=gpus, open=open)


def one_node(amount: Amount) -> list[Node]:
    """All of it on one."""
    gpus = tuple(map(str, range(amount.gpu)))
    return [Node(name="one", cpu=amount.cpu, memory=amount.memory, gpus=gpus)]


def one_room(free: Amount, whole: Amount | None = None) -> list[Room]:
    """One node with so much free, and enough in all for whatever is asked."""
    return [Room("one", whole or Amount(cpu=1000, memory=1000 * GIB, gpu=1000), free)]
