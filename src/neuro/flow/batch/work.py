"""The nodes under way and the instructions, shared by the parts of a bake's state. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from neuro.flow.batch.instructions import Instruction, Kill, SaveRecord
from neuro.flow.batch.items import Item, Places
from neuro.flow.batch.readiness import Readiness
from neuro.flow.model import FullId, Workflow
from neuro.flow.syntax.types import ALWAYS


@dataclass(slots=True, eq=False)
class Work:
    """The work on one attempt, as far as it has come."""

    workflow: Workflow
    attempt_id: str
    readiness: Readiness = field(default_factory=Readiness)
    places: Places = field(default_factory=Places)
    # Nodes that have begun and not ended, and those of them that have a job.
    busy: dict[FullId, Item] = field(default_factory=dict)
    of_job: dict[str, Item] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)

    def ask(self, instruction: Instruction) -> None:
        """Have the executor do something."""
        self.instructions.append(instruction)

    def take(self) -> list[Instruction]:
        """The instructions since the last call, in order."""
        taken, self.instructions = self.instructions, []
        return taken

    def write(self, item: Item, cache_key: str | None = None) -> None:
        """Have the record of a node kept as it is now."""
        self.ask(SaveRecord(item.record(self.attempt_id, cache_key)))

    def kill(self, item: Item, *, anyhow: bool = False) -> None:
        """Have a node's job ended, once. ``anyhow``: even where it runs under ALWAYS."""
        if item.job_id is None or item.killed:
            return
        if anyhow or not self.is_always(item):
            item.killed = True
            self.ask(Kill(item.job_id))

    def is_stopped(self, item: Item) -> bool:
        """Whether a node is not to go on, as what is around it is being cancelled."""
        return item.is_cancelling and not self.is_always(item)

    def is_always(self, item: Item) -> bool:
        """Whether a node runs also in what is being cancelled."""
        if item.always is None:
            try:
                enable = self.workflow.enable(item.node, item.needs)
            except Exception:  # It could be evaluated when it was started.
                enable = True
            item.always = enable is ALWAYS
        return item.always
