"""What the engine of a job may lack, asked for by name. All raise NotSupported where it does."""

from __future__ import annotations

from neuro.domain.errors import NotSupported
from neuro.engines.base import Attaches, Commits, Connects, Engine, Executes, Measures
from neuro.server.jobs.record import JobRecord


def attaching(engine: Engine, record: JobRecord) -> Attaches:
    """The engine, as one whose runs can be attached to."""
    if isinstance(engine, Attaches):
        return engine
    raise _lacking(record, "be attached to (`neuro attach`); `neuro logs` shows the output")


def executing(engine: Engine, record: JobRecord) -> Executes:
    """The engine, as one that starts further commands in runs."""
    if isinstance(engine, Executes):
        return engine
    raise _lacking(record, "run further commands (`neuro exec`)")


def connecting(engine: Engine, record: JobRecord) -> Connects:
    """The engine, as one that reaches the ports of runs."""
    if isinstance(engine, Connects):
        return engine
    raise _lacking(record, "be reached at a port (`neuro port-forward`)")


def committing(engine: Engine, record: JobRecord) -> Commits:
    """The engine, as one that makes images of runs."""
    if isinstance(engine, Commits):
        return engine
    raise _lacking(record, "be saved as an image (`neuro save`)")


def measuring(engine: Engine, record: JobRecord) -> Measures:
    """The engine, as one that knows what runs use."""
    if isinstance(engine, Measures):
        return engine
    raise _lacking(record, "be measured (`neuro top`)")


def _lacking(record: JobRecord, what: str) -> NotSupported:
    return NotSupported(f"Job {record.id} is on the engine '{record.engine}' and cannot {what}.")
