"""What ``/metrics`` tells of jobs, engines and the disk: numbers, no names of people or jobs."""

from __future__ import annotations

import shutil
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from neuro.domain.jobs import JobStatus, Reason
from neuro.domain.resources import Amount
from neuro.server.jobs.board import Board
from neuro.server.jobs.record import JobRecord

# Seconds: from a start at once to a night in the queue.
_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600)


class JobMetrics:
    """Follows what becomes of jobs; ``changed`` is for ``Board.listen``."""

    def __init__(self, registry: CollectorRegistry, board: Board) -> None:
        self._started: set[str] = {record.id for record in board.own if record.started_at}
        self._finished = Counter(
            "neuro_jobs_finished",
            "Jobs that have ended, by status and reason.",
            ["status", "reason"],
            registry=registry,
        )
        self._waiting = Histogram(
            "neuro_job_waiting_seconds",
            "Time from a job's submission until it gets its resources.",
            ["preset"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._start = Histogram(
            "neuro_job_start_seconds",
            "Time from when a job gets its resources until its command runs.",
            ["preset"],
            buckets=_BUCKETS,
            registry=registry,
        )

    def changed(self, record: JobRecord) -> None:
        """Count what is new of a job."""
        if record.status.is_finished:
            self._started.discard(record.id)
            reason = record.transitions[-1].reason or ""
            self._finished.labels(record.status.value, reason).inc()
        elif record.status is JobStatus.RUNNING and record.id not in self._started:
            self._started.add(record.id)
            self._observe(record)

    def _observe(self, record: JobRecord) -> None:
        begun = record.started_at
        scheduled = next(
            (one.transition_time for one in record.transitions if one.reason == Reason.SCHEDULING),
            None,
        )
        if begun is None or scheduled is None:
            return
        preset = record.specification.preset_name or ""
        waited = (scheduled - record.created_at).total_seconds()
        self._waiting.labels(preset).observe(max(0.0, waited))
        self._start.labels(preset).observe(max(0.0, (begun - scheduled).total_seconds()))


@dataclass(frozen=True)
class _Gauge:
    """Its name and help, the name of its label, and its values by label."""

    name: str
    text: str
    label: str
    read: Callable[[], Iterable[tuple[str, float]]]


class Gauges(Collector):
    """The gauges: read at the moment of a request."""

    def __init__(self, board: Board, folder: Path) -> None:
        """``folder`` is the data folder, whose disk is reported."""
        self._board = board
        self._folder = folder
        self._all = [
            _Gauge(
                "neuro_jobs_active", "Pending and running jobs, by status.", "status", self._active
            ),
            _Gauge(
                "neuro_bakes_driven",
                "Bakes that main jobs drive now, by engine.",
                "engine",
                self._driven,
            ),
            *self._amounts(
                "capacity", "that all jobs of an engine may take together", self._capacity
            ),
            *self._amounts("taken", "that the jobs of an engine hold now", self._taken),
            *self._amounts("free", "of an engine's capacity that no job holds", self._free),
            _Gauge(
                "neuro_disk_bytes",
                "Bytes of the disk that the data folder is on: all, and free ones.",
                "kind",
                self._disk,
            ),
        ]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry."""
        for gauge in self._all:
            family = GaugeMetricFamily(gauge.name, gauge.text, labels=[gauge.label])
            for label, value in gauge.read():
                family.add_metric([label], value)
            yield family

    def _amounts(
        self, what: str, text: str, read: Callable[[], Iterable[tuple[str, Amount]]]
    ) -> list[_Gauge]:
        def part(of: Callable[[Amount], float]) -> Callable[[], Iterable[tuple[str, float]]]:
            return lambda: [(name, of(amount)) for name, amount in read()]

        prefix = f"neuro_engine_{what}"
        return [
            _Gauge(f"{prefix}_cpu_cores", f"Cores {text}.", "engine", part(lambda a: a.cpu)),
            _Gauge(
                f"{prefix}_memory_bytes",
                f"Bytes of memory {text}.",
                "engine",
                part(lambda a: a.memory),
            ),
            _Gauge(f"{prefix}_gpus", f"GPUs {text}.", "engine", part(lambda a: a.gpu)),
        ]

    def _active(self) -> Iterable[tuple[str, float]]:
        running = sum(record.status is JobStatus.RUNNING for record in self._board.placed())
        return [("pending", len(self._board.own) - running), ("running", running)]

    def _driven(self) -> Iterable[tuple[str, float]]:
        counts = Count(record.engine for record in self._board.controls())
        return [(name, counts[name]) for name in self._board.lanes]

    def _capacity(self) -> Iterable[tuple[str, Amount]]:
        return [(name, lane.capacity) for name, lane in self._board.lanes.items()]

    def _free(self) -> Iterable[tuple[str, Amount]]:
        return [(name, lane.free) for name, lane in self._board.lanes.items()]

    def _taken(self) -> Iterable[tuple[str, Amount]]:
        return [(name, lane.taken) for name, lane in self._board.lanes.items()]

    def _disk(self) -> Iterable[tuple[str, float]]:
        usage = shutil.disk_usage(self._folder)
        return [("total", usage.total), ("free", usage.free)]


def watch(registry: CollectorRegistry, board: Board, folder: Path) -> None:
    """Let a registry tell of all of it, and of this process."""
    ProcessCollector(registry=registry)
    registry.register(Gauges(board, folder))
    board.listen(JobMetrics(registry, board).changed, own=True)
