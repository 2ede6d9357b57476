"""The jobs of engines that other servers hold, and what each of those engines has to do."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass

from neuro.domain.jobs import JobStatus
from neuro.domain.resources import NOTHING, Amount
from neuro.server.jobs.record import JobRecord


@dataclass(slots=True)
class EngineLoad:
    """Of one engine: what its jobs hold together, and how many run and wait."""

    taken: Amount = NOTHING
    jobs: int = 0
    running: int = 0
    waiting: int = 0

    def count(self, record: JobRecord, sign: int) -> None:
        """One more of these jobs; or with -1, one less."""
        self.jobs += sign
        self.running += sign * (record.status is JobStatus.RUNNING)
        self.waiting += sign * (not record.placed)
        if record.placed and not record.specification.control:
            amount = record.specification.amount
            self.taken = self.taken + amount if sign > 0 else self.taken - amount


class Followed(UserDict[str, JobRecord]):
    """By their ids. They are counted as they come and go: there may be very many."""

    def __init__(self) -> None:
        self._loads: dict[str, EngineLoad] = {}
        super().__init__()

    def load(self, engine: str) -> EngineLoad:
        """What an engine has to do."""
        return self._loads.get(engine) or EngineLoad()

    def __setitem__(self, job_id: str, record: JobRecord) -> None:
        if job_id in self.data:
            del self[job_id]
        self.data[job_id] = record
        self._loads.setdefault(record.engine, EngineLoad()).count(record, 1)

    def __delitem__(self, job_id: str) -> None:
        record = self.data.pop(job_id)
        load = self._loads[record.engine]
        load.count(record, -1)
        if not load.jobs:
            del self._loads[record.engine]
